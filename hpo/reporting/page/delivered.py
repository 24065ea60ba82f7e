"""The delivered files, and how to make them again."""

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from hpo.config.loading import dump_search_config
from hpo.model_files import ModelFiles
from hpo.program import command_line
from hpo.reporting.beside import beside_rows, distillation_rows
from hpo.reporting.extended import extension_rows
from hpo.reporting.modalities import HEAD, modality_rows
from hpo.reporting.page.parts import Table, percent
from hpo.reporting.page.reported import Reported, read_json

PACKAGES: Final = ("sgformer-hpo", "torch", "timm", "optuna", "ray", "onnx", "onnxruntime")
# Facts of trials that a repetition may need.
ATTRIBUTES: Final = {
    "trained by version": "code_version",
    "device": "device",
    "GPU": "gpu",
    "precision": "precision",
    "host": "hostname",
}
KIB: Final = 1024


def files_table(found: Reported) -> Table | None:
    """The exported files with size, accuracy, parity and latency; None: nothing is delivered."""
    told = read_json(ModelFiles(found.run.best).export_report)
    if not told:
        return None
    rows = [_file(name, of_file) for name, of_file in told.items()]
    head = (
        "file", "size", "top-1", "same class as PyTorch", "largest difference", "ms, batch 1",
        "ms, batch 8",
    )  # fmt: skip
    return Table(head, tuple(rows))


def distillation_table(found: Reported) -> Table | None:
    """Teacher, student alone and student distilled; None: there is no teacher."""
    size = None if found.winner is None else found.winner.facts.get("num_parameters")
    rows = tuple(distillation_rows(ModelFiles(found.run.best), found.verdict, size))
    metric = found.config.study.metric
    head = ("model", "parameters", f"{metric} (95 %)", "ms, batch 1", "ms, batch 8")
    return Table(head, rows) if rows else None


def beside_texts(found: Reported) -> list[str]:
    """What is delivered, its teacher and latencies, a sentence each."""
    rows = beside_rows(ModelFiles(found.run.best), found.config.study.metric)
    return [f"{name.capitalize()}: {text}." for name, text in rows.items()]


def extension_table(found: Reported) -> Table | None:
    """What the delivered model forgets as an extension of another one; None: it is none."""
    rows = extension_rows(ModelFiles(found.run.best))
    return Table(("what", "how"), tuple(rows.items())) if rows else None


def modalities_table(found: Reported) -> Table | None:
    """What the delivered model reaches by image and features; None: it takes images alone."""
    rows = tuple(modality_rows(found.metrics))
    return Table(HEAD, rows) if rows else None


def _file(name: str, told: Mapping[str, Any]) -> tuple[str, ...]:
    if "not_delivered" in told:
        return (name, f"not delivered: {told['not_delivered']}", "-", "-", "-", "-", "-")
    parity, latency = told.get("parity") or {}, told.get("latency_ms") or {}
    return (
        name,
        _bytes(told.get("bytes")),
        _number(told.get("top1"), ".4f"),
        _share(parity.get("argmax_agreement")),
        _number(parity.get("max_abs_diff"), ".1e"),
        _number((latency.get("1") or {}).get("p50"), ".3g"),
        _number((latency.get("8") or {}).get("p50"), ".3g"),
    )


def _share(share: float | None) -> str:
    return "-" if share is None else percent(share, 2)


def _bytes(num: float | None) -> str:
    if num is None:
        return "-"
    return f"{num / KIB**2:.2f} MiB" if num >= KIB**2 else f"{num / KIB:.1f} KiB"


def _number(value: float | None, how: str) -> str:
    return "-" if value is None else format(value, how)


def commands(found: Reported) -> list[tuple[str, str]]:
    """What to do, and the command that does it."""
    run, file = found.run.path, found.run.search_file
    told = [
        ("Search again", command_line("search", file, "--output-dir", "AGAIN")),
        ("Write this page again", command_line("report", run)),
    ]
    if not found.run.is_delivered:
        resume = command_line("search", file, "--output-dir", run.parent, "--resume")
        told.insert(0, ("Go on", resume))
    else:
        model = found.run.best / "model.onnx"
        told += [
            ("Deliver another trial", command_line("retrain", run, "--trial", "N")),
            ("Classify images", command_line("predict", model, "IMAGE...")),
        ]
    return told


def surroundings(found: Reported) -> Table:
    """Seed, versions and machines."""
    known = [trial.attributes for trial in found.trials if "code_version" in trial.attributes]
    rows = [("seed", str(found.config.study.seed)), ("Python", platform.python_version())]
    rows += [(name, text) for name in PACKAGES if (text := _version(name))]
    for name, attribute in ATTRIBUTES.items():
        values = dict.fromkeys(str(one[attribute]) for one in known if one.get(attribute))
        if values:
            rows.append((name, ", ".join(values)))
    return Table(("what", "which"), tuple(rows))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def config_text(found: Reported) -> str:
    """The search file with all defaults filled in."""
    return dump_search_config(found.config)
