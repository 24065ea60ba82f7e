"""What a search may take, what it has taken, and what is set aside for the trainings after it."""

import functools
import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from hpo.config.schema import SearchConfig
from hpo.study.study import SearchStudy
from hpo.study.trial import TrialSummary
from sgformer.config import maximises

SECONDS_AN_HOUR: Final = 3600.0
# Of a limit in hours: the most that is set aside for the trainings after the search. What they
# take is known only once epochs are timed, and the first ones are slow.
MOST_SET_ASIDE: Final = 0.5
UNITS: Final = {
    "total_epochs": ("epochs", 1.0),
    "gpu_hours": ("GPU-hours", SECONDS_AN_HOUR),
    "wall_clock_hours": ("hours", SECONDS_AN_HOUR),
}


@dataclass(frozen=True)
class Limit:
    """One limit of a search.

    Attributes:
        name: As in the search file.
        total: Epochs; or seconds, of GPUs or of the clock.
        adds_up: Whether trials that run at a time take of it together, as they do not of a clock.
        is_of_trials: Whether it is for trials alone, and not for the trainings after the search.
    """

    name: str
    total: float
    adds_up: bool = True
    is_of_trials: bool = False

    def together(self, taken: Sequence[float]) -> float:
        """What several trials take that run at a time."""
        return sum(taken) if self.adds_up else max(taken, default=0.0)


GPU_TIME: Final = Limit("gpu_hours", math.inf)


@dataclass
class _Taken:
    """By a trial, or a training on a fresh seed; what was trained twice counts twice."""

    epochs: float = 0.0
    seconds: float = 0.0
    gpu_seconds: float = 0.0
    promise: float = -math.inf  # the best value, turned such that larger is better


class Budget:
    """Counts what a search takes of its limits.

    The trainings after the search, of the finalists or of the winner, are set aside from the
    start, each epoch as long as those of the best trials so far; of hours on fewer seeds where
    they would take more than half. A trial without a GPU counts as one on one GPU. The clock
    stands still while no search runs.

    Args:
        config: Of the search.
        num_slots: Trials at a time.
        clock: In seconds.
    """

    def __init__(
        self, config: SearchConfig, num_slots: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock, self._begin, self._seconds_before = clock, clock(), 0.0
        self._num_slots = num_slots
        self._num_after, self._epochs_after = config.num_fresh_trainings, config.fresh_epochs
        self._num_a_seed = config.retrain.top_k + 1 if config.compares_finalists else 1
        self._top_k = config.retrain.top_k
        self._sign = 1 if maximises(config.study.metric) else -1
        self._trials: dict[int, _Taken] = {}
        self._fresh: tuple[_Taken, ...] = ()
        self.limits = tuple(_limits(config))

    @classmethod
    def of_study(
        cls,
        config: SearchConfig,
        study: SearchStudy,
        num_slots: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> Self:
        """With what earlier runs of the search have taken."""
        budget = cls(config, num_slots, clock)
        budget.take_up(
            study.trials(), study.metadata.trainings_after, study.metadata.seconds_searched
        )
        return budget

    def take_up(
        self,
        trials: Sequence[TrialSummary],
        fresh: Iterable[Mapping[str, Any]],
        seconds: float,
    ) -> None:
        """What earlier runs have taken: trials, trainings on fresh seeds, and seconds in all."""
        self._seconds_before = seconds
        self._fresh = tuple(
            _Taken(float(t["num_epochs"]), float(t["seconds"]), _of_gpus(t)) for t in fresh
        )
        for trial in trials:
            if not trial.is_carried_over:
                self.trained(trial.number, trial.curve, trial.facts)

    def trained(self, number: int, curve: Mapping[int, float], facts: Mapping[str, Any]) -> None:
        """A trial has come to an epoch; `facts` are those of its report, as far as known."""
        self.__dict__.pop("_finalists", None)
        taken = self._trials.setdefault(number, _Taken())
        num_epochs = max(curve, default=0)
        known = (self._sign * value for value in curve.values() if not math.isnan(value))
        taken.promise = max(known, default=-math.inf)
        taken.epochs = max(num_epochs, float(facts.get("num_epochs_trained", 0)))
        repeated = taken.epochs / max(1, num_epochs)
        if "seconds" in facts:
            taken.seconds = float(facts["seconds"]) * repeated
            taken.gpu_seconds = _of_gpus(facts) * repeated

    @property
    def seconds(self) -> float:
        """Of the clock, over all runs of the search."""
        return self._seconds_before + self._clock() - self._begin

    def left(self, limit: Limit) -> float:
        """Of a limit, for trials."""
        return limit.total - self.taken(limit) - self._set_aside(limit)

    def taken(self, limit: Limit) -> float:
        if limit.name == "wall_clock_hours":
            return self.seconds
        after = () if limit.is_of_trials else self._fresh
        everything = (*self._trials.values(), *after)
        if limit.name == "gpu_hours":
            untimed = sum(taken.epochs for taken in everything if not taken.seconds)
            timed = sum(taken.gpu_seconds for taken in everything)
            return timed + untimed * _an_epoch(limit, everything)
        return sum(taken.epochs for taken in everything)

    def an_epoch(self, limit: Limit, number: int | None = None) -> float:
        """What an epoch of a trial takes of a limit; of one not known, what they do on average."""
        known = [self._trials[number]] if number in self._trials else []
        return _an_epoch(limit, known) or _an_epoch(limit, self._trials.values())

    def seconds_an_epoch(self) -> dict[int, float]:
        """Of a GPU, by trial; of those that were timed."""
        timed = {n: _an_epoch(GPU_TIME, [taken]) for n, taken in self._trials.items()}
        return {n: seconds for n, seconds in timed.items() if seconds}

    def lets_train(self, numbers: Sequence[int]) -> bool:
        """Whether what is left lets each of these trials be trained anew, as often as it is here.

        At full length, after the search.
        """
        for limit in self.limits:
            if limit.is_of_trials:
                continue
            epochs = [self.an_epoch(limit, number) for number in numbers]
            num_rounds = math.ceil(len(numbers) / self._num_slots)
            needed = sum(epochs) if limit.adds_up else num_rounds * max(epochs, default=0.0)
            if needed * self._epochs_after > limit.total - self.taken(limit):
                return False
        return True

    @functools.cached_property
    def _finalists(self) -> tuple[_Taken, ...]:
        """As it looks now."""
        order = sorted(self._trials, key=lambda n: (-self._trials[n].promise, n))
        return tuple(self._trials[n] for n in order[: self._top_k])

    def _set_aside(self, limit: Limit) -> float:
        if limit.is_of_trials:
            return 0.0
        # Of a search that goes on, those that have been trained may be finalists again; others
        # may take their place, and are trained on one seed at least.
        num = max(self._num_after - len(self._fresh), self._num_a_seed)
        whole = self._together(limit, num)
        if limit.name == "total_epochs" or whole <= MOST_SET_ASIDE * limit.total:
            return whole
        fewer = (self._together(limit, n) for n in range(num, 0, -self._num_a_seed))
        most = MOST_SET_ASIDE * limit.total
        return next((needed for needed in fewer if needed <= most), most)

    def _together(self, limit: Limit, num_trainings: int) -> float:
        """What so many trainings after the search take, by what is known now."""
        each = [_an_epoch(limit, [trial]) for trial in self._finalists]
        # Of several that may be the one, the dearest.
        one = max(each, default=0.0) if self._num_after == 1 else _an_epoch(limit, self._finalists)
        one = one or self.an_epoch(limit)
        at_a_time = 1 if limit.adds_up else min(self._num_slots, num_trainings)
        return self._epochs_after * one * math.ceil(num_trainings / at_a_time)

    def in_words(self) -> str:
        """'61 of 100 epochs, 0.4 of 2 GPU-hours'; empty without a limit."""
        return ", ".join(
            f"{self.taken(limit) / unit:.4g} of {limit.total / unit:.4g} {name}"
            for limit in self.limits
            for name, unit in (UNITS[limit.name],)
        )


def _an_epoch(limit: Limit, some: Iterable[_Taken]) -> float:
    """On average over some trials; 0 if that is not known yet."""
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


def _of_gpus(facts: Mapping[str, Any]) -> float:
    return float(facts.get("gpu_seconds") or facts["seconds"])
