"""The rows that commands print: names with values as text."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from hpo.config.objectives import brief
from hpo.config.schema import SearchConfig
from hpo.config.search_space import Params
from hpo.delivery.results_copy import results_url
from hpo.model_files import ModelFiles
from hpo.reporting.beside import beside_rows
from hpo.reporting.extended import extension_rows
from hpo.reporting.modalities import ALONE
from hpo.run_folder import RunFolder
from hpo.selection.selection import objective_values
from hpo.selection.verdict import DEFAULT, Verdict
from hpo.selection.verdict_text import epochs_text, gain_text, mean_text, teacher_texts
from hpo.study.trial import TrialSummary
from sgformer.config import Metric
from sgformer.export.names import FILES

MAX_ROWS: Final = 16
_FORMATS: Final = {file: name for name, file in FILES.items()}
Rows = dict[str, str]


def counts_text(counts: Mapping[Any, int]) -> str:
    """Numbers of trials by state as text, such as '3 complete, 9 pruned'; empty for no trials."""
    return ", ".join(f"{n} {state.lower()}" for state, n in sorted(counts.items()))


def objectives_text(
    trial: TrialSummary, config: SearchConfig, value_so_far: float | None = None
) -> str:
    """The trial's objectives as text, such as 'val_top1 0.9700, latency_ms 2.1'.

    Args:
        trial: The trial.
        config: The config of the search.
        value_so_far: The metric to show if the trial has no final value yet.
    """
    values = objective_values(trial, config.study)
    metric, value = config.study.metric, values.pop(config.study.metric)
    value = value_so_far if value is None else value
    costs = (f"{name} {'-' if v is None else brief(v)}" for name, v in values.items())
    return ", ".join([f"{metric} {value:.4f}", *costs])


def front_rows(front: Sequence[TrialSummary], config: SearchConfig) -> Rows:
    """One row for each trial of the Pareto front; empty with one objective."""
    if not config.study.has_several_objectives:
        return {}
    rows = {f"front, trial {t.number}": objectives_text(t, config) for t in front[:MAX_ROWS]}
    more = len(front) - MAX_ROWS
    return rows | ({"front": f"and {more} more"} if more > 0 else {})


def params_rows(params: Params) -> Rows:
    """One row per parameter; floats have 12 digits, which hides rounding errors."""
    return {
        f"  {path}": f"{value:.12g}" if isinstance(value, float) else str(value)
        for path, value in params.items()
    }


def verdict_rows(verdict: Verdict, params: Rows | None = None) -> Rows:
    """Rows of the winner's mean on fresh seeds, the params if given, and the gain."""
    rows = {"winner": f"trial {verdict.winner}", **(params or {})}
    if verdict.means:
        rows["winner"] += f", {mean_text(verdict, verdict.winner)}"
        rows["its epochs"] = epochs_text(verdict)
    if DEFAULT in verdict.means and verdict.winner != DEFAULT:
        rows["default"] = f"trial {DEFAULT}, {mean_text(verdict, DEFAULT)}"
    if texts := teacher_texts(verdict):
        rows["without teacher"], rows["its teacher adds"] = texts
    return rows | {"gain": gain_text(verdict)}


def copied_rows(config: SearchConfig) -> Rows:
    """The URL to which the results were copied; empty if they are not."""
    url = results_url(config)
    return {} if url is None else {"copied to": url}


def delivery_rows(run: RunFolder, metric: Metric) -> Rows:
    """Rows of the delivered model's top-1 by split, what is beside it, and its files' paths."""
    metrics = json.loads((run.best / "metrics.json").read_text(encoding="utf-8"))
    rows = {}
    for split in ("val", "test"):
        if metrics[split]:
            top1, count = metrics[split]["top1"], metrics[split]["num_images"]
            rows[f"{split} top-1"] = f"{top1:.4f} (retrained, {count} images)"
            rows |= {
                f"{split} by {text}": f"{metrics[split][name]['top1']:.4f}"
                for name, text in ALONE.items()
                if metrics[split].get(name)
            }
    rows |= beside_rows(ModelFiles(run.best), metric)
    rows |= extension_rows(ModelFiles(run.best))
    report = json.loads((run.best / "export.json").read_text(encoding="utf-8"))
    others = {
        f"{_FORMATS.get(name, name)} model": (
            f"not delivered: {told['not_delivered']}"
            if "not_delivered" in told
            else str(run.best / name)
        )
        for name, told in report.items()
        if name != "model.onnx"
    }
    return rows | {
        "ONNX model": str(run.best / "model.onnx"),
        **others,
        "checkpoint": str(run.best / "checkpoint.safetensors"),
        "metrics": str(run.best / "metrics.json"),
        "parity, speed": str(run.best / "export.json"),
    }
