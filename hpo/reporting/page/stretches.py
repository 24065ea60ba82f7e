"""Stretches: when which trial was trained by which process, as attempts.csv of the trials tell."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from hpo.execution.attempts import Begun, begun_epochs
from hpo.run_folder import RunFolder
from hpo.study.trial import TrialSummary

# Epochs of a trial belong to one stretch if they begin within so many of its mean epochs, and
# seconds more.
MOST_EPOCHS_APART: Final = 3.0
MOST_SECONDS_APART: Final = 5.0


@dataclass(frozen=True)
class Stretch:
    """A time in which a process trained a trial without a break.

    Attributes:
        trial: The trial's number.
        process: Host and number of the process.
        begin: Seconds since 1970.
        end: Seconds since 1970; that of the last epoch is estimated by the trial's mean epoch.
        first_epoch: The first epoch of the stretch.
        last_epoch: Its last epoch.
    """

    trial: int
    process: str
    begin: float
    end: float
    first_epoch: int
    last_epoch: int


def stretches(run: RunFolder, trials: Sequence[TrialSummary]) -> tuple[Stretch, ...]:
    """The stretches of the trials in the order of their begins; empty: the folder has no times."""
    by_process: dict[str, list[tuple[Begun, TrialSummary]]] = defaultdict(list)
    for trial in trials:
        path = run.trials / str(trial.number) / "attempts.csv"
        if path.is_file():
            for begun in begun_epochs(path.read_text(encoding="utf-8")):
                by_process[begun.process].append((begun, trial))
    found = (one for of_process in by_process.values() for one in _of_process(of_process))
    return tuple(sorted(found, key=lambda one: one.begin))


def _of_process(begun: list[tuple[Begun, TrialSummary]]) -> Iterator[Stretch]:
    begun.sort(key=lambda one: (one[0].at, one[0].epoch))
    now: Stretch | None = None
    for one, trial in begun:
        seconds = _an_epoch(trial)
        is_near = not seconds or (now is not None and one.at <= now.end + _apart(seconds))
        if now is not None and now.trial == trial.number and is_near:
            now = replace(now, end=one.at + seconds, last_epoch=one.epoch)
            continue
        if now is not None:
            yield replace(now, end=min(now.end, one.at))
        now = Stretch(trial.number, one.process, one.at, one.at + seconds, one.epoch, one.epoch)
    if now is not None:
        yield now


def _an_epoch(trial: TrialSummary) -> float:
    """Mean seconds of a trial's epoch; 0: not timed."""
    return float(trial.facts.get("seconds") or 0.0) / max(1, trial.num_epochs)


def _apart(seconds: float) -> float:
    return MOST_EPOCHS_APART * seconds + MOST_SECONDS_APART


def lanes(found: Sequence[Stretch]) -> dict[str, int]:
    """The slot of each process, from 1: a process takes the first slot whose former one ended."""
    spans: dict[str, tuple[float, float]] = {}
    for one in found:
        begin, end = spans.get(one.process, (one.begin, one.end))
        spans[one.process] = min(begin, one.begin), max(end, one.end)
    free_from: list[float] = []
    slots = {}
    for process, (begin, end) in sorted(spans.items(), key=lambda item: item[1]):
        free = (i for i, since in enumerate(free_from) if since <= begin)
        slot = next(free, len(free_from))
        free_from[slot : slot + 1] = [end]
        slots[process] = slot + 1
    return slots
