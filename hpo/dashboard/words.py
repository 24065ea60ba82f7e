"""A trial in words: its state, the attributes that the page shows, its note."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from hpo.config.schema import SearchConfig
from hpo.reporting.study_reader import is_paused
from hpo.study.trial import STANDING, EndReason, TrialStatus, TrialSummary

PAUSED: Final = "Paused"  # a state of ours; Optuna's are RUNNING, COMPLETE, PRUNED, FAIL, WAITING
ORDINALS: Final = (
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth",
)  # fmt: skip
MOST_TRACEBACK_LINES: Final = 30
BYTES_A_GIB: Final = 2**30
MARKDOWN: Final = re.compile(r"([\\`*_{}\[\]<>#|~])")
# Facts that a trial's worker reports, under the names that the page shows.
NUMBERS: Final = {
    "num_parameters": "parameters",
    "seconds": "seconds",
    "gpu_seconds": "GPU-seconds",
    "images_per_second": "images per second",
}


def plain(text: object) -> str:
    """Foreign text as one line of Markdown that shows it as it is."""
    return MARKDOWN.sub(r"\\\1", " ".join(str(text).split()))


def shown_state(trial: TrialSummary, config: SearchConfig) -> str:
    """The state that the page shows: Optuna's word for it, or 'Paused'."""
    return PAUSED if is_paused(trial, config) else trial.state.capitalize()


def status_of(trial: TrialSummary, config: SearchConfig, line: Sequence[int]) -> str:
    """What a trial does, or how it ended: 'paused at epoch 8, third in line'.

    Args:
        trial: The trial.
        config: The config of its search.
        line: Numbers of the paused trials, the one that is resumed first at the front.
    """
    if trial.state != TrialStatus.RUNNING:
        return _end_of(trial)
    if not is_paused(trial, config):
        return f"running, epoch {trial.num_epochs} of {config.train.max_epochs}"
    text = f"paused at epoch {trial.num_epochs}"
    if trial.number not in line:
        return text
    return f"{text}, {ordinal(line.index(trial.number) + 1)} in line"


def _end_of(trial: TrialSummary) -> str:
    reason, epoch = str(trial.attributes.get("end_reason", "")), trial.num_epochs
    if reason == EndReason.COMPLETED:
        return f"complete, {epoch} epochs"
    if reason == EndReason.EARLY_STOPPED:
        return f"complete, stopped itself at epoch {epoch}"
    if reason == EndReason.DIVERGED:
        return f"diverged in epoch {epoch}"
    if trial.state == TrialStatus.FAIL:
        return f"failed: {reason}"
    standing = trial.attributes.get(STANDING)
    if standing:
        return f"{reason}: {ordinal(standing[0], in_letters=False)} of {standing[1]}"
    if reason.startswith("paused at"):
        return f"{reason} when the search ended"
    return reason or trial.state.lower()


def ordinal(number: int, *, in_letters: bool = True) -> str:
    """The ordinal: 'third', '11th'."""
    if in_letters and number <= len(ORDINALS):
        return ORDINALS[number - 1]
    teens = number % 100 in {11, 12, 13}
    return f"{number}{'th' if teens else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"


def attributes_of(
    trial: TrialSummary, config: SearchConfig, line: Sequence[int]
) -> dict[str, str | float]:
    """The attributes that the page shows of a trial, in place of those that programs read."""
    facts, best = trial.facts, trial.best_value(config.study.objective.best)
    shown: dict[str, str | float] = {"status": status_of(trial, config, line)}
    if best is not None:
        shown[f"best {config.study.metric}"] = float(f"{best:.6g}")
    if "best_epoch" in facts:
        shown["best epoch"] = facts["best_epoch"]
    shown["epochs"] = trial.num_epochs
    known = {**facts, **{n: trial.attributes[n] for n in NUMBERS if n in trial.attributes}}
    shown |= {NUMBERS[n]: round(value, 1) for n in NUMBERS if (value := known.get(n))}
    if memory := facts.get("peak_memory_bytes"):
        shown["memory, GiB"] = round(memory / BYTES_A_GIB, 2)
    costs = {name: trial.attributes.get(name) for name in config.study.costs}
    shown |= {name: value for name, value in costs.items() if value is not None}
    if tags := [str(one["tag"]) for one in facts.get("diagnosis") or ()]:
        shown["diagnosis"] = "; ".join(tags)
    return shown


def trial_note(trial: TrialSummary, config: SearchConfig, line: Sequence[int]) -> str:
    """A trial's note, as Markdown: what became of it, and its diagnosis with remedies."""
    lines = [f"**{_capital(plain(status_of(trial, config, line)))}**", *_missed(trial)]
    best, epoch = trial.best_value(config.study.objective.best), trial.facts.get("best_epoch")
    if best is not None:
        at = f", at epoch {epoch}" if epoch else ""
        lines.append(f"Best {config.study.metric}: {best:.4f}{at}.")
    if trial.is_carried_over:
        origin = trial.attributes["carried_over_from"]
        lines.append(f"Carried over: trial {origin['number']} of {plain(origin['study'])}.")
    found = trial.facts.get("diagnosis")
    if found:
        lines.append("### Diagnosis")
        lines += [_finding(one) for one in found]
    elif found is not None and trial.curve:
        lines.append("Diagnosis: no fault found in its curve and counters.")
    return "\n\n".join([*lines, *_error(trial)])


def _finding(found: Mapping[str, Any]) -> str:
    tag, evidence, remedy = (plain(found[name]) for name in ("tag", "evidence", "remedy"))
    return f"- **{_capital(tag)}**: {evidence}. Try: {remedy}."


def _missed(trial: TrialSummary) -> list[str]:
    missed = [plain(name) for name, violation in trial.constraints.items() if violation > 0]
    return [f"Misses the constraint {', '.join(missed)}."] if missed else []


def _error(trial: TrialSummary) -> list[str]:
    error = trial.attributes.get("error")
    if not error or not error.get("traceback"):
        return []
    last = str(error["traceback"]).rstrip().splitlines()[-MOST_TRACEBACK_LINES:]
    return ["### Traceback", "\n".join(f"    {one}" for one in last)]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
