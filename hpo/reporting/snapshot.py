"""Snapshot: a search at one moment, as the live display and `watch` show it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from hpo.config.schema import SearchConfig
from hpo.config.search_space import Value
from hpo.engine.observer import Place
from hpo.reporting.health import HealthCard
from hpo.study.trial import TrialStatus

NAMES: Final = {
    TrialStatus.COMPLETE: "complete",
    TrialStatus.PRUNED: "pruned",
    TrialStatus.FAIL: "failed",
}


@dataclass
class TrialAtWork:
    """Params, last epoch, and latest and best metric of a running or paused trial."""

    params: Mapping[str, Value]
    epoch: int
    latest: float | None = None
    best: float | None = None
    place: Place = field(default_factory=Place)


@dataclass(frozen=True)
class Snapshot:
    """A search at one moment.

    Attributes:
        config: The config of the search.
        phase: What the search does, such as 'searching'.
        states: The number of ended trials by state.
        running: The trials that train, by number.
        num_paused: The number of paused trials.
        best: Number and value of the best trial; None: there is none yet.
        seconds: How long the search has run.
        seconds_left: Estimated seconds until the last trial ends; None: no estimate.
        num_slots: How many trials may run at the same time; None: not known.
        budget: What is left of each limit, such as '39 of 100 epochs'.
        health: The outcomes of the checks, the worst first.
    """

    config: SearchConfig
    phase: str
    states: Mapping[str, int]
    running: Mapping[int, TrialAtWork]
    num_paused: int
    best: tuple[int, float] | None
    seconds: float
    seconds_left: float | None = None
    num_slots: int | None = None
    budget: Sequence[str] = ()
    health: Sequence[HealthCard] = ()

    def summary(self) -> str:
        """One line: trials by state, the best value, time elapsed and time left."""
        return f"{self.trials_text()}, {self.time_text()}"

    def trials_text(self) -> str:
        """The trials by state and the best value: '3 of 12 trials ended, 1 complete, ...'."""
        total = self.config.study.num_trials
        parts = [f"{self.num_ended} of {total} trials ended", self.states_text()]
        if self.best is not None:
            parts.append(f"best {self.best_text()}")
        return ", ".join(parts)

    @property
    def num_ended(self) -> int:
        """The trials that ended and were not ruled out by their architecture."""
        return sum(self.states.values()) - self.states.get(TrialStatus.INFEASIBLE, 0)

    def states_text(self) -> str:
        """The ended trials by state: '1 complete, 2 pruned, 0 failed'."""
        counts = [f"{self.states.get(state, 0)} {name}" for state, name in NAMES.items()]
        num_infeasible = self.states.get(TrialStatus.INFEASIBLE, 0)
        if num_infeasible:
            counts.append(f"{num_infeasible} infeasible")
        return ", ".join(counts)

    def best_text(self) -> str:
        """The best value so far: 'val_top1 0.9883 (trial 4)'."""
        if self.best is None:
            return "none yet"
        number, value = self.best
        return f"{self.config.study.metric} {value:.4f} (trial {number})"

    def time_text(self) -> str:
        """The time elapsed, and the time left as far as it is known."""
        left = self.seconds_left
        text = f"{clock_time(self.seconds)} elapsed"
        return f"{text}, about {clock_time(left)} left" if left else text


def epochs_left(
    config: SearchConfig,
    num_epochs: int,
    num_ended: int,
    ended: Sequence[int],
    running: Sequence[int],
) -> float | None:
    """The epochs that trials have yet to train; None: it is too early to tell.

    They are those left in the budget, or without a limit on epochs follow from the mean epochs of
    ended trials.

    Args:
        config: The config of the search.
        num_epochs: Epochs that all trials have trained.
        num_ended: The number of ended trials.
        ended: The epochs of ended trials, as far as they are known.
        running: The epochs of each trial that trains.
    """
    limit = config.limits["total_epochs"]
    if limit is not None:
        is_given = config.budget.total_epochs is not None
        after = config.epochs_set_aside if is_given else 0
        return max(0, limit - after - num_epochs)
    if not ended:
        return None
    mean = sum(ended) / len(ended)
    waiting = config.study.num_trials - num_ended - len(running)
    return max(0, waiting) * mean + sum(max(1.0, mean - epoch) for epoch in running)


def short_params(params: Mapping[str, Value]) -> str:
    """Params by the last part of their paths, as 'name=sg_former_b0 learning_rate=0.0005'."""
    return " ".join(
        f"{path.rpartition('.')[2]}={value:.3g}"
        if isinstance(value, float)
        else f"{path.rpartition('.')[2]}={value}"
        for path, value in params.items()
    )


def clock_time(seconds: float) -> str:
    """Seconds as text: '1:05' (minutes), or '2:01:05' (hours) from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def number_text(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
