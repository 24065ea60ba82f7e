"""Asynchronous successive halving (ASHA): trials stop at rungs, or pause and are promoted.

Source: Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020; promotion
is algorithm 2 there.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from hpo import pareto
from hpo.config.schema import DEFAULT_MIN_EPOCHS, SchedulerConfig
from hpo.config.search_space import Params
from hpo.schedulers.base import Choice, Resume, Start, Wait
from hpo.schedulers.pausing import PausingScheduler, TrialState
from hpo.surrogate.rows import Phase


def rung_epochs(config: SchedulerConfig, max_epochs: int) -> tuple[int, ...]:
    """The rungs below `max_epochs`: min_epochs times the powers of reduction_factor."""
    epochs = []
    epoch = config.min_epochs or DEFAULT_MIN_EPOCHS
    while epoch < max_epochs:
        epochs.append(epoch)
        epoch *= config.reduction_factor
    return tuple(epochs)


class AsynchronousHalving:
    """ASHA that stops trials: a trial goes on if it is among the best of each rung it reaches.

    A trial's value at a rung is its best value up to there, so that one noisy epoch ends no
    trial. Trial 0, the default configuration, enters the rungs but is never stopped: the winner
    has to beat it. A trial is not stopped either at a rung that fewer than reduction_factor
    trials have reached. With several objectives the best trials are whole non-dominated fronts,
    and the most diverse trials of the first front that does not fit.

    Args:
        config: Has the first rung and the reduction factor.
        max_epochs: The length of a training, in epochs; there is no rung at the end.
        maximise: Whether a larger value is better.

    Attributes:
        rung_epochs: The epochs of the rungs, ascending.
    """

    point = "rung"

    def __init__(self, config: SchedulerConfig, max_epochs: int, *, maximise: bool) -> None:
        self._factor = config.reduction_factor
        self._sign = 1.0 if maximise else -1.0
        epochs = rung_epochs(config, max_epochs)
        self._rungs: dict[int, dict[int, tuple[float, ...]]] = {epoch: {} for epoch in epochs}

    @property
    def rung_epochs(self) -> tuple[int, ...]:
        return tuple(self._rungs)

    def stops_at(
        self, number: int, curve: Mapping[int, float], costs: Sequence[float] = ()
    ) -> int | None:
        """The first rung at which a trial is not among the best; None: the trial goes on.

        The trial is judged at every rung that its curve (the objective by epoch) has reached and
        where it was not judged before: after a crash, one report may bring several epochs.
        `costs` are the trial's other objectives; smaller is better.
        """
        last = max(curve, default=0)
        fallen = [
            epoch
            for epoch, rung in self._rungs.items()
            if epoch <= last
            and number not in rung
            and not self._stands(number, epoch, curve, costs)
        ]
        return fallen[0] if fallen else None

    def standing(self, number: int, epoch: int) -> tuple[int, int] | None:
        """A trial's rank at a rung and how many trials are there; None: several objectives."""
        rung = self._rungs[epoch]
        if len(rung[number]) > 1:
            return None
        return 1 + sum(losses < rung[number] for losses in rung.values()), len(rung)

    def _stands(
        self, number: int, epoch: int, curve: Mapping[int, float], costs: Sequence[float]
    ) -> bool:
        """Enters a trial into a rung; returns whether it is among the best there."""
        rung = self._rungs[epoch]
        values = (self._sign * v for e, v in curve.items() if e <= epoch and not math.isnan(v))
        rung[number] = (-max(values, default=-math.inf), *costs)
        if number == 0 or len(rung) < self._factor:
            return True
        num_kept = math.ceil(len(rung) / self._factor)
        if costs:
            return _is_among_best(rung, number, num_kept)
        return rung[number] <= sorted(rung.values())[num_kept - 1]


class Promotion(PausingScheduler[TrialState]):
    """ASHA that pauses trials: a free slot promotes the best trial of the highest rung.

    A paused trial can be promoted if it is among the best 1 / reduction_factor of the trials that
    reached its rung. If no rung has such a trial, a new trial starts. A trial's value at a rung
    is its best value up to there.

    Args:
        config: Has the first rung and the reduction factor.
        max_epochs: The length of a training, in epochs.
        maximise: Whether a larger value is better.
    """

    def __init__(self, config: SchedulerConfig, max_epochs: int, *, maximise: bool) -> None:
        epochs = rung_epochs(config, max_epochs)
        super().__init__(max_epochs, (*epochs, max_epochs), maximise=maximise)
        self._factor = config.reduction_factor
        self._values: dict[int, dict[int, float]] = {epoch: {} for epoch in self._rungs.latest}

    def started(self, number: int, params: Params) -> None:
        self._trials[number] = TrialState()

    def reported(self, number: int, values: Mapping[int, float]) -> None:
        super().reported(number, values)
        for epoch, rung in self._values.items():
            if epoch <= max(values, default=0) and number not in rung:
                rung[number] = self._best(number, epoch)

    def completed(self, number: int, value: float) -> None:
        """A trial ran its length or stopped itself: its value counts at all later rungs too."""
        super().completed(number, value)
        for epoch, rung in self._values.items():
            rung.setdefault(number, self._best(number, epoch))
        self._values[self._max_epochs][number] = self._sign * value

    def next(self, paused: Sequence[int], *, may_start: bool) -> Choice:
        for epoch in reversed(self._rungs.latest[:-1]):
            number = self._promotable(epoch)
            if number is not None and number in paused:
                return Resume(number)
        return Start() if may_start else Wait()

    def ranking(self) -> tuple[int, ...]:
        """Started trials: highest rung first, then best value there.

        The default (trial 0) counts at no higher rung than any other trial has reached.
        """
        reached = {
            number: max(epoch for epoch, rung in self._values.items() if number in rung)
            for number in set().union(*self._values.values())
            if self._trials[number].state != Phase.FAILED
        }
        others = [epoch for number, epoch in reached.items() if number]
        if 0 in reached and others:
            reached[0] = min(reached[0], max(others))
        key = {
            number: (epoch, self._values[epoch].get(number, self._best(number, epoch)))
            for number, epoch in reached.items()
        }
        return tuple(sorted(key, key=lambda n: (-key[n][0], -key[n][1], n)))

    def in_line(self, paused: Sequence[int]) -> tuple[int, ...]:
        waiting = set(paused)
        return tuple(number for number in self.ranking() if number in waiting)

    def least_promising(self, besides: int | None = None) -> int | None:
        waiting = set(self.paused_trials()) - {besides, self.last_one}
        paused = [number for number in self.ranking() if number in waiting]
        return paused[-1] if paused else None

    def _promotable(self, epoch: int) -> int | None:
        """The best trial paused at a rung, if it is among the best there; else None."""
        rung = self._values[epoch]
        best = sorted(rung, key=lambda n: (-rung[n], n))[: len(rung) // self._factor]
        trials = {number: self._trials[number] for number in best}
        waiting = (n for n, t in trials.items() if t.state == Phase.PAUSED and t.epoch == epoch)
        return next(waiting, None)

    def _best(self, number: int, epoch: int) -> float:
        curve = self._trials[number].curve
        values = (v for e, v in curve.items() if e <= epoch and not math.isnan(v))
        return max(values, default=-math.inf)


def _is_among_best(rung: Mapping[int, tuple[float, ...]], number: int, num_kept: int) -> bool:
    """Whether a trial is among the `num_kept` best of a rung, by several losses.

    A trial whose curve is all NaN never is, however small its costs are.
    """
    numbers = [n for n, losses in rung.items() if math.isfinite(losses[0])]
    best = pareto.best_rows(np.array([rung[n] for n in numbers]), num_kept)
    return number in {numbers[row] for row in best}
