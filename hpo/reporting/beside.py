"""What metrics.json says of a delivered model beside its own metrics, as text and as a table."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from hpo.delivery.combination import latency_text, read_combination
from hpo.model_files import ModelFiles
from hpo.selection.intervals import Estimate
from hpo.selection.verdict import SHARES_OF_IMAGES, Verdict
from sgformer.config import Metric
from sgformer.intervals import share_interval

MILLION: Final = 1e6
NAMES: Final = ("combination", "teacher", "latency_ms")


def beside(files: ModelFiles) -> dict[str, Any]:
    """The entries of metrics.json that are no split's, for programs; None: there is none."""
    values = json.loads(files.metrics.read_text("utf-8")) if files.metrics.is_file() else {}
    return {name: values.get(name) for name in NAMES}


def beside_rows(files: ModelFiles, metric: Metric) -> dict[str, str]:
    """What is delivered, its teacher, and latencies by turns, as names and values."""
    rows, combination, teacher = {}, read_combination(files), beside(files)["teacher"]
    if combination is not None:
        rows["delivered as"] = combination.text()
    if teacher is not None:
        rows["its teacher"] = teacher_text(teacher, metric)
    if text := latency_text(files):
        rows["latency"] = text
    return rows


def teacher_text(teacher: Mapping[str, Any], metric: Metric) -> str:
    """A teacher with its size and its metric on val."""
    names, millions = " + ".join(teacher["models"]), teacher["num_parameters"] / MILLION
    known = "; it may have been trained on some of them" if teacher["may_know_val"] else ""
    return (
        f"{names}, {millions:.2f} M parameters: {metric} {_value(teacher, metric)} on the "
        f"{teacher['val']['num_images']} val images, as its student sees them{known}"
    )


def distillation_rows(
    files: ModelFiles, verdict: Verdict | None, num_parameters: int | None
) -> Iterator[tuple[str, ...]]:
    """Teacher, student alone and student distilled: size, metric, milliseconds; none without one.

    Args:
        files: The delivered model's files.
        verdict: The finalists' comparison on fresh seeds.
        num_parameters: The number of the student's parameters; None: not known.
    """
    found = beside(files)
    teacher, latency = found["teacher"], found["latency_ms"] or {}
    if teacher is None or verdict is None:
        return
    own = "-" if num_parameters is None else _millions(num_parameters)
    value = _value(teacher, verdict.metric)
    yield ("teacher", _millions(teacher["num_parameters"]), value, *_ms(latency, "teacher"))
    times = _ms(latency, "delivered")
    if verdict.teacher is not None:
        yield ("student alone", own, _interval(verdict.teacher.alone), *times)
    if verdict.winner in verdict.means:
        yield ("student distilled", own, _interval(verdict.means[verdict.winner]), *times)


def _interval(estimate: Estimate) -> str:
    text = f"{estimate.mean:.4f}"
    return text if estimate.low is None else f"{text} ({estimate.low:.4f} to {estimate.high:.4f})"


def _value(teacher: Mapping[str, Any], metric: Metric) -> str:
    """A teacher's metric on val; of a share of images with its interval over images."""
    val = teacher["val"]
    value = val[metric.removeprefix("val_")]
    if metric not in SHARES_OF_IMAGES:
        return f"{value:.4f}"
    low, high = share_interval(value, val["num_images"])
    return f"{value:.4f} ({low:.4f} to {high:.4f})"


def _millions(num: int) -> str:
    return f"{num / MILLION:.2f} M"


def _ms(latency: Mapping[str, Any], name: str) -> tuple[str, str]:
    of = latency.get(name)
    if of is None:
        return "-", "-"
    return f"{of['1']['p50']:.3g}", f"{of['8']['p50']:.3g}"
