"""Base class of schedulers that pause and resume trials: trials' curves, states and rungs."""

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from hpo.schedulers.base import Decision, Scheduler
from hpo.surrogate.rows import Phase


@dataclass(kw_only=True)
class TrialState:
    """A trial as its scheduler knows it.

    Attributes:
        curve: The objective by epoch; larger is better.
        state: Whether the trial runs, is paused, or how it ended.
    """

    curve: dict[int, float] = field(default_factory=dict)
    state: Phase = Phase.RUNNING

    @property
    def epoch(self) -> int:
        """The last epoch of the curve; 0 before the first."""
        return max(self.curve, default=0)


Trial = TypeVar("Trial", bound=TrialState)


class RungTable:
    """The epochs at which trials compete (rungs); a change holds for later trials only."""

    def __init__(self, rungs: tuple[int, ...]) -> None:
        self._rungs_from = {0: rungs}

    def set_from(self, number: int, rungs: tuple[int, ...]) -> None:
        """Sets the rungs, ascending epochs, of the trials from `number` on."""
        self._rungs_from[number] = rungs

    def of(self, number: int) -> tuple[int, ...]:
        """A trial's rungs, ascending; the last one is the end of a training."""
        return self._rungs_from[max(n for n in self._rungs_from if n <= number)]

    @property
    def latest(self) -> tuple[int, ...]:
        """The rungs of trials that are yet to start."""
        return self._rungs_from[max(self._rungs_from)]

    def every(self) -> Iterable[tuple[int, ...]]:
        """All sets of rungs that hold, or held, for some trials."""
        return self._rungs_from.values()


class PausingScheduler(Scheduler, Generic[Trial]):
    """Lets trials run to a rung and compete there; the best go on, the others are paused.

    Trial 0, the default configuration, is trained to its end at once.

    Args:
        max_epochs: The length of a training, in epochs.
        rungs: The epochs at which trials compete; the last one is `max_epochs`.
        maximise: Whether a larger value is better.
    """

    may_pause = True

    def __init__(self, max_epochs: int, rungs: tuple[int, ...], *, maximise: bool) -> None:
        self._max_epochs = max_epochs
        self._rungs = RungTable(rungs)
        self._sign = 1.0 if maximise else -1.0
        self._trials: dict[int, Trial] = {}
        self.last_one: int | None = None

    @abstractmethod
    def ranking(self) -> tuple[int, ...]:
        """Numbers of started trials, the one with the best expected end first."""

    def reported(self, number: int, values: Mapping[int, float]) -> None:
        curve = self._trials[number].curve
        curve |= {epoch: self._sign * value for epoch, value in values.items()}

    def interrupted(self, number: int) -> bool:
        """Whether the trial is at a rung, where it may have yet to compete."""
        return self.is_at_rung(number)

    def paused(self, number: int) -> None:
        self._trials[number].state = Phase.PAUSED

    def resumed(self, number: int) -> None:
        self._trials[number].state = Phase.RUNNING

    def completed(self, number: int, value: float) -> None:
        trial = self._trials[number]
        trial.state = Phase.COMPLETE
        trial.curve.setdefault(self._max_epochs, self._sign * value)

    def pruned(self, number: int, *, diverged: bool = False) -> None:
        trial = self._trials[number]
        trial.state = Phase.PRUNED if trial.curve else Phase.FAILED
        if diverged and trial.curve:
            trial.curve[self._max_epochs] = math.nan

    def failed(self, number: int) -> None:
        self._trials[number].state = Phase.FAILED

    def on_epoch(self, number: int) -> Decision:
        return Decision.PAUSE if self._competes(number) else Decision.CONTINUE

    def is_at_rung(self, number: int) -> bool:
        """Whether a running trial is at an epoch where trials compete."""
        epoch = self._trials[number].epoch
        is_rung = epoch in self._rungs.of(number) and epoch < self._max_epochs
        return is_rung and not self._runs_on(number)

    @property
    def first_rung(self) -> int:
        return self._rungs.latest[0]

    @property
    def most_epochs_to_end(self) -> int:
        return self._max_epochs - min(rungs[0] for rungs in self._rungs.every())

    def next_stop(self, number: int, epoch: int) -> int:
        if self._runs_on(number):
            return self._max_epochs
        return next((rung for rung in self._rungs.of(number) if rung > epoch), self._max_epochs)

    def ends_with_one(self, *, compares_finalists: bool) -> bool:
        return True

    def may_be_last(self) -> tuple[int, ...]:
        """Trials that are complete or can be trained to their end, best expected end first.

        The default (trial 0) comes last if it was pruned; other pruned trials are left out.
        """
        able = [n for n in self.ranking() if self._trials[n].state != Phase.PRUNED]
        default = self._trials.get(0)
        is_left = default is not None and default.state != Phase.FAILED and 0 not in able
        return (*able, *((0,) if is_left else ()))

    def paused_trials(self) -> tuple[int, ...]:
        """Numbers of the paused trials."""
        return tuple(n for n, trial in self._trials.items() if trial.state == Phase.PAUSED)

    def _competes(self, number: int) -> bool:
        """Whether a running trial has to compete after its last epoch."""
        return self.is_at_rung(number)

    def _runs_on(self, number: int) -> bool:
        """Whether a trial is trained to its end without competing."""
        return number in (0, self.last_one)
