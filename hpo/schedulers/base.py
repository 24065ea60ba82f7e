"""The scheduler's interface: events it is told of, decisions it makes, its capabilities."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from hpo.config.search_space import Params
from hpo.schedulers.first_rung import FirstRung
from hpo.study.trial import EndReason, TrialStatus, TrialSummary


class Decision(StrEnum):
    """What becomes of a running trial after an epoch.

    PAUSE: the trial competes with paused and new ones, and goes on only if it is the best to run.
    """

    CONTINUE = "continue"
    STOP = "stop"
    PAUSE = "pause"


@dataclass(frozen=True)
class Resume:
    """A free slot goes to a paused trial."""

    number: int


@dataclass(frozen=True)
class Start:
    """A free slot goes to a new trial; params None: an enqueued trial's, or the sampler's."""

    params: Params | None = None


@dataclass(frozen=True)
class Wait:
    """A free slot stays free."""


Choice = Resume | Start | Wait


class Scheduler(Protocol):
    """Decides which trials go on, stop or pause, and what a free slot runs.

    A scheduler knows trials only from the events that it is told of. The same events lead to the
    same decisions, so a resumed search goes on as an unbroken one. Trial 0, the default
    configuration, is never stopped or paused. The methods under "Capabilities" have defaults for
    schedulers that lack the capability.

    Attributes:
        may_pause: Whether trials can be paused and resumed.
        last_one: Number of the trial that the search trains to its end at last; None: not
            chosen yet.
        model_state: Hyperparameters that the surrogate's next fit starts from; None: there are
            none.
    """

    may_pause: bool = False
    last_one: int | None = None
    model_state: list[float] | None = None

    def started(self, number: int, params: Params) -> None:
        """A new trial runs."""

    def reported(self, number: int, values: Mapping[int, float]) -> None:
        """A running trial reported new epochs; `values` is the objective by epoch."""

    def interrupted(self, number: int) -> bool:
        """A driver died while this trial ran; returns whether its last epoch may be unjudged."""

    def paused(self, number: int) -> None:
        """A running trial gave its slot up."""
        return

    def resumed(self, number: int) -> None:
        """A paused trial runs again."""
        return

    def completed(self, number: int, value: float) -> None:
        """A trial ran its length or stopped itself; `value` is its final value."""

    def pruned(self, number: int, *, diverged: bool = False) -> None:
        """A trial was stopped, given up or diverged: its curve grows no longer."""

    def failed(self, number: int) -> None:
        """A trial broke; the scheduler learns nothing from it."""

    def on_epoch(self, number: int) -> Decision:
        """Decides what becomes of a running trial after its last reported epoch."""

    def next(self, paused: Sequence[int], *, may_start: bool) -> Choice:
        """The choice for a free slot: a trial of `paused` or, if `may_start`, a new one."""

    @property
    def first_rung(self) -> int:
        """The epoch at which a trial that starts now is first compared."""

    def next_stop(self, number: int, epoch: int) -> int:
        """The next epoch at which a trial that is at `epoch` may stop, pause or end."""

    # Capabilities.

    def place_of_stop(self, number: int) -> str:
        """Where a running trial was stopped, in words, such as 'rung 4'."""
        return "its last epoch"

    def standing(self, number: int) -> tuple[int, int] | None:
        """A running trial's rank where it was stopped, and of how many; None: there are no ranks.

        The best trial's rank is 1.
        """
        return None

    def in_line(self, paused: Sequence[int]) -> tuple[int, ...]:
        """Paused trials in the order in which they would be resumed; unknown ones are left out."""
        return ()

    @property
    def is_exhausted(self) -> bool:
        """Whether every configuration of the space that may be started has been tried."""
        return False

    @property
    def is_blind(self) -> bool:
        """Whether a trial that starts now would be chosen without any other trial's curve."""
        return False

    @property
    def most_epochs_to_end(self) -> int:
        """Epochs from the earliest first rung to the end of a training."""
        return 0

    def ends_with_one(self, *, compares_finalists: bool) -> bool:
        """Whether the search ends by training its most promising trial to the end."""
        return False

    def may_be_last(self) -> tuple[int, ...]:
        """Trials that are complete or can be trained to their end, best expected end first."""
        return ()

    def least_promising(self, besides: int | None = None) -> int | None:
        """The paused trial that is given up first, `besides` excepted; None: there is none."""
        return None

    def expected_gains(self, paused: Sequence[int]) -> Mapping[int | None, float]:
        """Expected improvement of each paused trial and a new one (None) on the incumbent.

        The values are in the objective's unit; empty if the scheduler has no estimate.
        """
        return {}

    def weigh_costs(self, seconds: Mapping[int, float]) -> None:
        """Divides gains by GPU-seconds from now on; `seconds` is an epoch's, by trial number."""
        return

    def choose_rungs(self) -> tuple[FirstRung, ...] | None:
        """All first rungs chosen so far and a new one, if the curves suggest it; else None."""
        return None

    def set_first_rungs(self, chosen: Sequence[FirstRung]) -> None:
        """Sets the first rungs; each holds for trials from its `from_trial` on."""
        return


class TrialListener(Protocol):
    """Is told of a trial's start, its epochs and its end, as every scheduler is."""

    def started(self, number: int, params: Params) -> None: ...

    def reported(self, number: int, values: Mapping[int, float]) -> None: ...

    def completed(self, number: int, value: float) -> None: ...

    def pruned(self, number: int, *, diverged: bool = False) -> None: ...

    def failed(self, number: int) -> None: ...


def replay_into(listener: TrialListener, trials: Iterable[TrialSummary]) -> None:
    """Tells a scheduler of a study's trials, with the events that it would have had from them.

    RUNNING trials are left running: the caller has to say which of them are paused.
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
    """Tells a scheduler how a trial ended; only a COMPLETE trial has a `value`."""
    if state == TrialStatus.FAIL:
        listener.failed(number)
    elif state == TrialStatus.COMPLETE and value is not None:
        listener.completed(number, value)
    else:
        listener.pruned(number, diverged=diverged)
