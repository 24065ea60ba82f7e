"""The budget: a search's limits, what is used of them, and what later trainings need."""

import heapq
import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from hpo.config.schema import SearchConfig
from hpo.engine.ledger import Taken, TrialLedger, gpu_seconds_of
from hpo.study.study import SearchStudy

SECONDS_AN_HOUR: Final = 3600.0
SECONDS_BETWEEN_NOTES: Final = 10.0
# At most this share of a limit in hours is set aside for the trainings after the search: their
# length is only known once epochs are timed, and the first epochs are slow.
MOST_SET_ASIDE: Final = 0.5
# A search ends a little before its limit, and its finalists may cost their share of the whole.
SLACK: Final = 1.05
UNITS: Final = {
    "total_epochs": ("epochs", 1.0),
    "gpu_hours": ("GPU-hours", SECONDS_AN_HOUR),
    "wall_clock_hours": ("hours", SECONDS_AN_HOUR),
}


@dataclass(frozen=True)
class Limit:
    """One limit of a search.

    Attributes:
        name: The limit's name in the search file.
        total: Epochs, GPU-seconds or wall-clock seconds, by name.
        adds_up: Whether trials that run at the same time add up; they do not in wall-clock time.
        is_of_trials: Whether only trials use the limit, not the trainings after the search.
    """

    name: str
    total: float
    adds_up: bool = True
    is_of_trials: bool = False

    def together(self, taken: Sequence[float]) -> float:
        """The joint use of trials that run at the same time; `taken` is each one's use."""
        return sum(taken) if self.adds_up else max(taken, default=0.0)


GPU_TIME: Final = Limit("gpu_hours", math.inf)
EPOCHS: Final = Limit("total_epochs", math.inf)


class Budget:
    """Counts how much of its limits a search has used, by the costs in its ledger.

    From the start it sets aside what the trainings after the search will need, of the finalists
    or of the winner; their epochs are expected to take as long as the best trials' do. Where
    this is more than half of a limit in hours, or than `retrain.max_share` allows, fewer of them
    are planned, but at least one. A trial without a GPU counts as one on one GPU. The clock stands
    still while no search runs.

    Args:
        config: The config of the search.
        ledger: Knows what each trial has cost.
        num_slots: The most trials that run at the same time.
        clock: Returns seconds.
        fresh: Earlier trainings after the search: num_epochs, seconds, gpu_seconds of each.
        seconds_before: Wall-clock seconds that earlier runs of the search took.
    """

    def __init__(
        self,
        config: SearchConfig,
        ledger: TrialLedger,
        num_slots: int,
        clock: Callable[[], float] = time.monotonic,
        *,
        fresh: Iterable[Mapping[str, Any]] = (),
        seconds_before: float = 0.0,
    ) -> None:
        self._clock, self._begin, self._seconds_before = clock, clock(), seconds_before
        self._ledger, self.num_slots = ledger, num_slots
        self._known_finalists: tuple[int, list[Taken]] = (-1, [])
        self._num_after, self._epochs_after = config.num_fresh_trainings, config.fresh_epochs
        self._num_a_seed = config.num_trainings_a_seed
        self._top_k = config.retrain.top_k
        self._max_share = config.retrain.max_share if config.compares_finalists else None
        self._fresh = tuple(
            Taken(float(t["num_epochs"]), float(t["seconds"]), gpu_seconds_of(t)) for t in fresh
        )
        self.limits = tuple(_limits(config))

    @classmethod
    def of_study(
        cls,
        config: SearchConfig,
        study: SearchStudy,
        num_slots: int = 1,
        clock: Callable[[], float] = time.monotonic,
        ledger: TrialLedger | None = None,
    ) -> Self:
        """The budget of a search that may be resumed; `ledger` None: made from the study."""
        return cls(
            config,
            ledger or TrialLedger(config.study.objective, study.trials()),
            num_slots,
            clock,
            fresh=study.metadata.trainings_after,
            seconds_before=study.metadata.seconds_searched,
        )

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of all runs of the search."""
        return self._seconds_before + self._clock() - self._begin

    def left(self, limit: Limit) -> float:
        """The rest of a limit for trials, in the limit's unit; negative once it is exceeded."""
        return limit.total - self.taken(limit) - self._set_aside(limit)

    def taken(self, limit: Limit) -> float:
        """The used part of a limit, by trials and trainings after the search, in its unit."""
        if limit.name == "wall_clock_hours":
            return self.seconds
        after = () if limit.is_of_trials else self._fresh
        return _together(limit, (*self._of_trials, *after))

    @property
    def _of_trials(self) -> list[Taken]:
        return [cost.taken for cost in self._ledger.costs.values()]

    @property
    def share_taken(self) -> float:
        """How much is used of the limit that ends the trials first, 0 to 1; 0 without limits."""
        shares = [0.0]
        for limit in self.limits:
            taken, left = self.taken(limit), max(0.0, self.left(limit))
            shares.append(taken / (taken + left) if taken else 0.0)
        return max(shares)

    def an_epoch(self, limit: Limit, number: int | None = None) -> float:
        """An epoch's cost in the limit's unit: trial `number`'s, or the mean if not known."""
        known = [self._ledger.costs[number].taken] if number in self._ledger.costs else []
        return _an_epoch(limit, known) or _an_epoch(limit, self._of_trials)

    def seconds_an_epoch(self) -> dict[int, float]:
        """GPU-seconds of an epoch by trial number, for the trials that were timed."""
        timed = {n: _an_epoch(GPU_TIME, [cost.taken]) for n, cost in self._ledger.costs.items()}
        return {n: seconds for n, seconds in timed.items() if seconds}

    def lets_train(self, numbers: Sequence[int]) -> bool:
        """Whether what is left pays for training these trials anew at full length.

        A number that is given twice is trained twice.
        """
        for limit in self.limits:
            if limit.is_of_trials:
                continue
            epochs = [self.an_epoch(limit, number) for number in numbers]
            num_rounds = math.ceil(len(numbers) / self.num_slots)
            needed = sum(epochs) if limit.adds_up else num_rounds * max(epochs, default=0.0)
            if needed * self._epochs_after > limit.total - self.taken(limit):
                return False
        return True

    def keeps_to_share(self, numbers: Sequence[int]) -> bool:
        """Whether training these trials anew keeps to `retrain.max_share` of the trials' cost.

        The cost is GPU-time, or epochs while none is timed. One training always does: what is
        delivered needs it. A number that is given twice is trained twice.
        """
        if self._max_share is None or len(numbers) <= 1:
            return True
        limit = GPU_TIME if any(taken.seconds for taken in self._of_trials) else EPOCHS
        needed = self._epochs_after * sum(self.an_epoch(limit, number) for number in numbers)
        return needed <= SLACK * self._max_share * _together(limit, self._of_trials)

    @property
    def _finalists(self) -> list[Taken]:
        """Costs of the `top_k` most promising trials; sorted anew after each charge."""
        num_charges, finalists = self._known_finalists
        if num_charges != self._ledger.num_charges:
            costs = self._ledger.costs
            best = heapq.nsmallest(self._top_k, costs, key=lambda n: (-costs[n].promise, n))
            finalists = [costs[number].taken for number in best]
            self._known_finalists = self._ledger.num_charges, finalists
        return finalists

    def _set_aside(self, limit: Limit) -> float:
        if limit.is_of_trials:
            return 0.0
        # In a resumed search, finalists that were trained on fresh seeds may be finalists again.
        # Others may replace them, and these need a training on at least one seed.
        num_trained = sum(taken.epochs > 0 for taken in self._fresh)  # evaluations have none
        num = max(self._num_after - num_trained, self._num_a_seed)
        most, num_seeds = self._most_set_aside(limit), math.ceil(num / self._num_a_seed)
        nums = (min(num, n * self._num_a_seed) for n in range(num_seeds, 0, -1))
        fewer = (self._needed(limit, n) for n in nums)
        return next((needed for needed in fewer if needed <= most), most)

    def _most_set_aside(self, limit: Limit) -> float:
        """The most that is set aside: enough for one training, up to half of a limit in hours."""
        most = math.inf if limit.name == "total_epochs" else MOST_SET_ASIDE * limit.total
        if self._max_share is None:
            return most
        of_all = self._max_share / (1 + self._max_share)  # trials and trainings are the whole
        whole = limit.total - (_together(limit, self._fresh) if limit.adds_up else 0.0)
        return min(most, max(of_all * whole, self._needed(limit, 1)))

    def _needed(self, limit: Limit, num_trainings: int) -> float:
        """The expected use of a limit by so many trainings after the search, in its unit."""
        finalists = self._finalists
        each = [_an_epoch(limit, [taken]) for taken in finalists]
        # If only the winner is trained, any of these may win: reserve for the most expensive.
        one = max(each, default=0.0) if num_trainings == 1 else _an_epoch(limit, finalists)
        one = one or self.an_epoch(limit)
        at_a_time = 1 if limit.adds_up else min(self.num_slots, num_trainings)
        return self._epochs_after * one * math.ceil(num_trainings / at_a_time)

    def in_words(self) -> str:
        """The use of each limit: '61 of 100 epochs, 0.4 of 2 GPU-hours'; '' without limits."""
        return ", ".join(
            f"{self.taken(limit) / unit:.4g} of {limit.total / unit:.4g} {name}"
            for limit in self.limits
            for name, unit in (UNITS[limit.name],)
        )


class NotedClock:
    """Notes in the study how long the search has run, so that a resumed search counts on.

    Each note is a write to the database, so one is made every ten seconds at most.

    Args:
        budget: Measures the seconds.
        study: Keeps the seconds.
    """

    def __init__(self, budget: Budget, study: SearchStudy) -> None:
        self._budget, self._study, self._noted = budget, study, budget.seconds

    def note(self) -> None:
        """Writes the seconds to the study, unless it did so less than ten seconds ago."""
        seconds = self._budget.seconds
        if seconds > self._noted + SECONDS_BETWEEN_NOTES:
            self._noted = self._study.metadata.seconds_searched = seconds


def _together(limit: Limit, everything: Sequence[Taken]) -> float:
    """The sum of these costs, in the unit of a limit of epochs or GPU-time."""
    if limit.name == "total_epochs":
        return sum(taken.epochs for taken in everything)
    untimed = sum(taken.epochs for taken in everything if not taken.seconds)
    timed = sum(taken.gpu_seconds for taken in everything)
    return timed + untimed * _an_epoch(limit, everything)


def _an_epoch(limit: Limit, some: Iterable[Taken]) -> float:
    """The mean cost of these trials' epochs, in the limit's unit; 0 while none is timed."""
    if limit.name == "total_epochs":
        return 1.0
    timed = [taken for taken in some if taken.seconds and taken.epochs]
    if not timed:
        return 0.0
    of_gpus = limit.name == "gpu_hours"
    return statistics.fmean(
        (taken.gpu_seconds if of_gpus else taken.seconds) / taken.epochs for taken in timed
    )


def _limits(config: SearchConfig) -> Iterable[Limit]:
    limits, hours = config.limits, SECONDS_AN_HOUR
    total_epochs, gpu, wall = (
        limits[name] for name in ("total_epochs", "gpu_hours", "wall_clock_hours")
    )
    if total_epochs is not None:
        is_own = config.budget.total_epochs is None
        yield Limit("total_epochs", total_epochs, is_of_trials=is_own)
    if gpu is not None:
        yield Limit("gpu_hours", gpu * hours)
    if wall is not None:
        yield Limit("wall_clock_hours", wall * hours, adds_up=False)
