"""Asynchronous successive halving (ASHA): trials stop at rungs, or pause and are promoted.

Source: Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020; promotion
is its algorithm 2.
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
    """min_epochs and its multiples by powers of reduction_factor, below max_epochs."""
    epochs = []
    epoch = config.min_epochs or DEFAULT_MIN_EPOCHS
    while epoch < max_epochs:
        epochs.append(epoch)
        epoch *= config.reduction_factor
    return tuple(epochs)


class AsynchronousHalving:
    """Rungs of best values so far; a trial goes on if it is among the best of its rung.

    The value at a rung is the best one up to it, as the trial's own value will be: one noisy
    epoch ends no trial. Trial 0, the default configuration, is compared with but never stopped:
    it is what the winner has to beat. Nor is a trial that comes to a rung before there are
    reduction_factor to compare. With several objectives the best are whole non-dominated fronts,
    and the most diverse of the front that does not fit.

    Args:
        config: First rung and reduction factor.
        max_epochs: The length of a trial; there is no rung at the end.
        maximise: Whether a larger value is better.
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
        """The first rung at which a trial does not stand; None: it goes on.

        It is judged at every rung that its curve (the objective by epoch) has reached and that it
        was not judged at: after a crash, several epochs may come in one report. `costs` are its
        other objectives, the smaller the better.
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

    def _stands(
        self, number: int, epoch: int, curve: Mapping[int, float], costs: Sequence[float]
    ) -> bool:
        """Enters the trial into a rung; whether it is among the best there."""
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
    """A free slot promotes the best trial of the highest rung that has one to promote.

    That is one of the best 1 / reduction_factor of those that came to its rung; where there is
    none, a new trial starts. The value at a rung is the best one up to it.

    Args:
        config: First rung and reduction factor.
        max_epochs: The length of a trial.
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
        """A trial came to its end, or stopped itself: its value counts at the later rungs too."""
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
        """The best of the highest rung first; the default stands in the highest of others'."""
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

    def least_promising(self, besides: int | None = None) -> int | None:
        waiting = set(self.paused_trials()) - {besides, self.last_one}
        paused = [number for number in self.ranking() if number in waiting]
        return paused[-1] if paused else None

    def _promotable(self, epoch: int) -> int | None:
        """The best trial that waits at a rung, if it is among the best there."""
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
    """By several losses; a curve of NaN is the worst, however little its trial costs."""
    numbers = [n for n, losses in rung.items() if math.isfinite(losses[0])]
    best = pareto.best_rows(np.array([rung[n] for n in numbers]), num_kept)
    return number in {numbers[row] for row in best}
