"""What a trial does, or how it ended, in words."""

from collections.abc import Sequence
from textwrap import shorten
from typing import Final

from hpo.config.schema import PAUSING, SearchConfig
from hpo.study.trial import STANDING, EndReason, TrialStatus, TrialSummary

ORDINALS: Final = (
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth",
)  # fmt: skip
LONGEST_CAUSE: Final = 120  # characters


def is_paused(trial: TrialSummary, config: SearchConfig) -> bool:
    """Whether a trial waits to be resumed, as far as the study tells."""
    may_pause = config.scheduler.name in PAUSING
    is_running = trial.state == TrialStatus.RUNNING
    return may_pause and is_running and trial.facts_of_pause is not None


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


def cause_of(trial: TrialSummary) -> str:
    """What broke a trial: type and first line of its error."""
    error = trial.attributes.get("error") or {}
    message = str(error.get("message", "")).strip().splitlines() or [""]
    text = f"{error.get('type', 'an unknown error')}: {message[0]}".removesuffix(": ")
    return shorten(text, LONGEST_CAUSE, placeholder=" ...")
