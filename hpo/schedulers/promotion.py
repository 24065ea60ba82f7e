"""Asynchronous successive halving with promotion: which paused trial goes on to the next rung.

Source: Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020,
algorithm 2.
"""

import math
from collections.abc import Mapping, Sequence

from hpo.config.schema import SchedulerConfig
from hpo.config.search_space import Params
from hpo.schedulers.asha import rung_epochs
from hpo.schedulers.base import Choice, PausingPolicy, TrialState


class Promotion(PausingPolicy[TrialState]):
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
        self._rungs: dict[int, dict[int, float]] = {epoch: {} for epoch in self._levels}

    def started(self, number: int, params: Params) -> None:
        self._trials[number] = TrialState()

    def reported(self, number: int, values: Mapping[int, float]) -> None:
        super().reported(number, values)
        for epoch, rung in self._rungs.items():
            if epoch <= max(values, default=0) and number not in rung:
                rung[number] = self._best(number, epoch)

    def completed(self, number: int, value: float) -> None:
        super().completed(number, value)
        self._rungs[self._max_epochs][number] = self._sign * value

    def choose(
        self, paused: Sequence[int] | None = None, *, may_start: bool = True
    ) -> Choice | None:
        able = self.paused_trials() if paused is None else paused
        for epoch in reversed(self._levels[:-1]):
            number = self._promotable(epoch)
            if number in able:
                return Choice(number)
        return Choice() if may_start else None

    def ranking(self) -> tuple[int, ...]:
        """The best of the highest rung first; the default stands in the highest of others'."""
        reached = {
            number: max(epoch for epoch, rung in self._rungs.items() if number in rung)
            for number in set().union(*self._rungs.values())
            if self._trials[number].state != "failed"
        }
        others = [epoch for number, epoch in reached.items() if number]
        if 0 in reached and others:
            reached[0] = min(reached[0], max(others))
        key = {
            number: (epoch, self._rungs[epoch].get(number, self._best(number, epoch)))
            for number, epoch in reached.items()
        }
        return tuple(sorted(key, key=lambda n: (-key[n][0], -key[n][1], n)))

    def least_promising(self, besides: int | None = None) -> int | None:
        paused = [n for n in self.ranking() if self.is_paused(n)]
        paused = [n for n in paused if n not in (besides, self.last_one)]
        return paused[-1] if paused else None

    def _promotable(self, epoch: int) -> int | None:
        """The best trial that waits at a rung, if it is among the best there."""
        rung = self._rungs[epoch]
        best = sorted(rung, key=lambda n: (-rung[n], n))[: len(rung) // self._factor]
        waiting = (n for n in best if self.is_paused(n) and self._trials[n].epoch == epoch)
        return next(waiting, None)

    def _best(self, number: int, epoch: int) -> float:
        curve = self._trials[number].curve
        values = (v for e, v in curve.items() if e <= epoch and not math.isnan(v))
        return max(values, default=-math.inf)
