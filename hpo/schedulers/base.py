"""What is chosen by where trials may be paused; the states of trials, whatever it is chosen by."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from hpo.config.search_space import Params
from hpo.study.trial import EndReason, TrialStatus, TrialSummary


@dataclass(kw_only=True)
class TrialState:
    """What is known of a trial: its curve (larger is better), what it is at."""

    curve: dict[int, float] = field(default_factory=dict)
    state: str = "running"  # or paused, complete, pruned (its curve was cut), failed

    @property
    def epoch(self) -> int:
        return max(self.curve, default=0)


@dataclass(frozen=True)
class Choice:
    """What to run next: a paused trial, or a new one with these params, if any are set."""

    number: int | None = None
    params: Params | None = None


Trial = TypeVar("Trial", bound=TrialState)


class PausingPolicy(ABC, Generic[Trial]):
    """Trials run to a level and compete there; what is chosen is run, the others are paused.

    What is chosen depends on the trials and their curves, so a search that is resumed goes on as
    it would have. Trial 0, the default configuration, is trained to its end at once.

    Args:
        max_epochs: The length of a trial.
        levels: The epochs at which trials compete.
        maximise: Whether a larger value is better.

    Attributes:
        last_one: The trial that runs to its end before the search does.
        model_state: What the next choice begins from, beside the curves; None: nothing.
    """

    model_state: list[float] | None = None

    def __init__(self, max_epochs: int, levels: tuple[int, ...], *, maximise: bool) -> None:
        self._max_epochs = max_epochs
        self._levels_from = {0: levels}  # of the trials from a number on
        self._sign = 1.0 if maximise else -1.0
        self._trials: dict[int, Trial] = {}
        self.last_one: int | None = None

    @abstractmethod
    def started(self, number: int, params: Params) -> None:
        """A new trial runs."""

    @abstractmethod
    def choose(
        self, paused: Sequence[int] | None = None, *, may_start: bool = True
    ) -> Choice | None:
        """What is best to run now, of these paused trials (None: of all) and new ones."""

    @abstractmethod
    def ranking(self) -> tuple[int, ...]:
        """Started trials, the one first that is expected to end best."""

    @abstractmethod
    def least_promising(self, besides: int | None = None) -> int | None:
        """The paused trial that is given up first; None: there is none but `besides`."""

    def reported(self, number: int, values: Mapping[int, float]) -> None:
        """Adds epochs to a trial's curve."""
        curve = self._trials[number].curve
        curve |= {epoch: self._sign * value for epoch, value in values.items()}

    def paused(self, number: int) -> None:
        self._trials[number].state = "paused"

    def resumed(self, number: int) -> None:
        self._trials[number].state = "running"

    def completed(self, number: int, value: float) -> None:
        """A trial came to its end, or stopped itself at a value that stays."""
        trial = self._trials[number]
        trial.state = "complete"
        trial.curve.setdefault(self._max_epochs, self._sign * value)

    def pruned(self, number: int, *, diverged: bool = False) -> None:
        """A trial is given up: its curve is known as far as it came."""
        trial = self._trials[number]
        trial.state = "pruned" if trial.curve else "failed"
        if diverged and trial.curve:
            trial.curve[self._max_epochs] = math.nan

    def failed(self, number: int) -> None:
        """Nothing is learnt from a trial."""
        self._trials[number].state = "failed"

    def competes(self, number: int) -> bool:
        """Whether a running trial has to compete now for going on."""
        return self.is_at_level(number)

    def is_at_level(self, number: int) -> bool:
        """Whether a running trial is where trials compete."""
        epoch = self._trials[number].epoch
        is_level = epoch in self._levels_of(number) and epoch < self._max_epochs
        return is_level and not self._runs_on(number)

    def _runs_on(self, number: int) -> bool:
        """Whether a trial is trained to its end without competing."""
        return number in (0, self.last_one)

    def curves(self) -> tuple[Mapping[int, float], ...]:
        """Of trials that did not fail; larger is better."""
        return tuple(t.curve for t in self._trials.values() if t.state != "failed")

    @property
    def is_closing(self) -> bool:
        """Whether nothing will be started or resumed any more."""
        return self.last_one is not None and not self.is_paused(self.last_one)

    def is_paused(self, number: int) -> bool:
        return self._trials[number].state == "paused"

    def num_epochs_left(self, number: int) -> int:
        """Of a trial, until its end."""
        trial = self._trials[number]
        return 0 if trial.state == "complete" else self._max_epochs - trial.epoch

    @property
    def first_level(self) -> int:
        """Of trials that are yet to start."""
        return self._levels[0]

    @property
    def num_epochs_to_last_level(self) -> int:
        """From the first level, at most."""
        return self._max_epochs - min(levels[0] for levels in self._levels_from.values())

    def num_epochs_ahead(self, number: int) -> int:
        """Of a trial that runs, or may be resumed, until it stops."""
        epoch = self._trials[number].epoch
        return self._target(number, epoch) - epoch

    @property
    def next_number(self) -> int:
        """Above those of all trials that have started."""
        return max(self._trials, default=-1) + 1

    def may_be_last(self) -> tuple[int, ...]:
        """Trials that are at their end or can be trained to it, the best end first, 0 at last."""
        able = [n for n in self.ranking() if self._trials[n].state != "pruned"]
        default = self._trials.get(0)
        is_left = default is not None and default.state != "failed" and 0 not in able
        return (*able, *((0,) if is_left else ()))

    @property
    def has_lost_default(self) -> bool:
        """Whether the default configuration's trial will not come to its end."""
        default = self._trials.get(0)
        return default is not None and default.state in {"pruned", "failed"}

    def paused_trials(self) -> tuple[int, ...]:
        return tuple(n for n, trial in self._trials.items() if trial.state == "paused")

    def running_trials(self) -> tuple[int, ...]:
        return tuple(n for n, trial in self._trials.items() if trial.state == "running")

    def last_choice(self) -> Choice | None:
        """The last trial, if it is yet to be resumed."""
        return None if self.last_one is None or self.is_closing else Choice(self.last_one)

    def _target(self, number: int, epoch: int) -> int:
        if self._runs_on(number):
            return self._max_epochs
        levels = self._levels_of(number)
        return next((level for level in levels if level > epoch), self._max_epochs)

    @property
    def _levels(self) -> tuple[int, ...]:
        """Of trials that are yet to start."""
        return self._levels_from[max(self._levels_from)]

    def _levels_of(self, number: int) -> tuple[int, ...]:
        return self._levels_from[max(n for n in self._levels_from if n <= number)]


class TrialListener(Protocol):
    """What hears of a trial's start, its epochs and its end, as every scheduler does."""

    def started(self, number: int, params: Params) -> None: ...

    def reported(self, number: int, values: Mapping[int, float]) -> None: ...

    def completed(self, number: int, value: float) -> None: ...

    def pruned(self, number: int, *, diverged: bool = False) -> None: ...

    def failed(self, number: int) -> None: ...


def replay_into(listener: TrialListener, trials: Iterable[TrialSummary]) -> None:
    """Tells a scheduler of a study's trials, as it would have heard of them while they ran.

    RUNNING ones are left running: whether they are paused is the caller's to say.
    """
    for trial in trials:
        listener.started(trial.number, trial.params)
        listener.reported(trial.number, trial.curve)
        if trial.state != TrialStatus.RUNNING:
            diverged = trial.attributes.get("end_reason") == EndReason.DIVERGED
            tell_end(listener, trial.number, trial.state, trial.value, diverged=diverged)


def tell_end(
    listener: TrialListener,
    number: int,
    state: TrialStatus,
    value: float | None,
    *,
    diverged: bool,
) -> None:
    """Tells a scheduler how a trial ended; `value` is a COMPLETE trial's."""
    if state == TrialStatus.FAIL:
        listener.failed(number)
    elif state == TrialStatus.COMPLETE and value is not None:
        listener.completed(number, value)
    else:
        listener.pruned(number, diverged=diverged)
