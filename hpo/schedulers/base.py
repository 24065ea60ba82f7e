"""What every scheduler is to the engine: what it hears, what it decides, what it can do beside."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from hpo.config.search_space import Params
from hpo.schedulers.first_rung import FirstRung
from hpo.study.trial import EndReason, TrialStatus, TrialSummary


class Decision(StrEnum):
    """What becomes of a running trial after an epoch.

    PAUSE: it competes with paused trials and new ones, and goes on only if it is the best to run.
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
    """A free slot goes to a new trial; None: the waiting one's params, or the sampler's."""

    params: Params | None = None


@dataclass(frozen=True)
class Wait:
    """A free slot stays free."""


Choice = Resume | Start | Wait


class Scheduler(Protocol):
    """Decides which trials go on, stop or pause, and what a free slot runs.

    It knows trials by the events that it is told, so the same events make the same decisions: a
    search that is resumed goes on as it would have. Trial 0, the default configuration, is never
    stopped or paused. A scheduler without a capability keeps the default given here.

    Attributes:
        may_pause: Whether trials give their slot up and may be resumed.
        last_one: The trial that runs to its end before the search ends; None: not chosen yet.
        model_state: Hyperparameters that the surrogate's next fit starts from; None: there are
            none.
    """

    may_pause: bool = False
    last_one: int | None = None
    model_state: list[float] | None = None

    def started(self, number: int, params: Params) -> None:
        """A new trial runs."""

    def reported(self, number: int, values: Mapping[int, float]) -> None:
        """Epochs of a running trial that were not known: the objective by epoch."""

    def interrupted(self, number: int) -> bool:
        """A driver that died left a trial running; whether its last epoch is yet to be judged."""

    def paused(self, number: int) -> None:
        """A running trial gave its slot up."""
        return

    def resumed(self, number: int) -> None:
        """A paused trial runs again."""
        return

    def completed(self, number: int, value: float) -> None:
        """A trial came to its end, or stopped itself at a value that stays what it is."""

    def pruned(self, number: int, *, diverged: bool = False) -> None:
        """A trial was stopped, given up or diverged: its curve is known as far as it came."""

    def failed(self, number: int) -> None:
        """A trial broke; nothing is learnt from it."""

    def on_epoch(self, number: int) -> Decision:
        """What becomes of a running trial after the last epoch that was reported."""

    def next(self, paused: Sequence[int], *, may_start: bool) -> Choice:
        """What a free slot runs, of these paused trials and, if `may_start`, new ones."""

    @property
    def first_rung(self) -> int:
        """The epoch at which a trial that starts now is first compared."""

    def next_stop(self, number: int, epoch: int) -> int:
        """The epoch up to which a trial that runs at `epoch` cannot stop or pause."""

    # Capabilities.

    def place_of_stop(self, number: int) -> str:
        """Where a running trial was stopped, in words, such as 'rung 4'."""
        return "its last epoch"

    @property
    def is_exhausted(self) -> bool:
        """Whether every configuration of the space that may be started has been tried."""
        return False

    @property
    def is_blind(self) -> bool:
        """Whether a trial that starts now would know nothing of those before it."""
        return False

    @property
    def most_epochs_to_end(self) -> int:
        """Epochs from the earliest first rung to the end of a training."""
        return 0

    def ends_with_one(self, *, compares_finalists: bool) -> bool:
        """Whether the search itself trains the most promising trial to its end, at last."""
        return False

    def may_be_last(self) -> tuple[int, ...]:
        """Trials that are at their end or can be trained to it, the best expected end first."""
        return ()

    def least_promising(self, besides: int | None = None) -> int | None:
        """The paused trial that is given up first; None: there is none but `besides`."""
        return None

    def expected_gains(self, paused: Sequence[int]) -> Mapping[int | None, float]:
        """How much better than the incumbent each trial may end (None: a new one).

        In the objective's unit; empty where that is not known.
        """
        return {}

    def weigh_costs(self, seconds: Mapping[int, float]) -> None:
        """Divides expected gains by GPU-seconds from now on; `seconds` of an epoch, by trial."""
        return

    def choose_rungs(self) -> tuple[FirstRung, ...] | None:
        """All first rungs chosen so far, if the curves say that there is a new one to set."""
        return None

    def set_first_rungs(self, chosen: Sequence[FirstRung]) -> None:
        """Sets the first rungs of trials from a number on; trials before it keep theirs."""
        return


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
