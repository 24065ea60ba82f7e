"""Asynchronous successive halving (ASHA): which trials stop at a rung.

Source: Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020; the
stopping form.
"""

import math
from collections.abc import Mapping

from hpo.config import SchedulerConfig


class AsynchronousHalving:
    """Rungs of best values so far; a trial goes on if it is among the best of its rung.

    The value at a rung is the best one up to it, as the trial's own value will be: one noisy
    epoch ends no trial. Trial 0, the default configuration, is compared with but never stopped:
    it is what the winner has to beat. Nor is a trial that comes to a rung before there are
    reduction_factor to compare.

    Args:
        config: First rung and reduction factor; `none` has no rungs.
        max_epochs: The length of a trial; there is no rung at the end.
        maximise: Whether a larger value is better.
    """

    def __init__(self, config: SchedulerConfig, max_epochs: int, *, maximise: bool) -> None:
        self._factor = config.reduction_factor
        self._sign = 1.0 if maximise else -1.0
        self._rungs: dict[int, dict[int, float]] = {}
        epoch = config.min_epochs
        while config.name == "asha" and epoch < max_epochs:
            self._rungs[epoch] = {}
            epoch *= self._factor

    @property
    def rung_epochs(self) -> tuple[int, ...]:
        return tuple(self._rungs)

    def goes_on(self, number: int, curve: Mapping[int, float]) -> bool:
        """Whether a trial continues after the last epoch of its curve (objective by epoch)."""
        epoch = max(curve)
        if epoch not in self._rungs:
            return True
        rung = self._rungs[epoch]
        rung[number] = max(
            (self._sign * value for value in curve.values() if not math.isnan(value)),
            default=-math.inf,
        )
        if number == 0 or len(rung) < self._factor:
            return True
        num_kept = math.ceil(len(rung) / self._factor)
        return rung[number] >= sorted(rung.values(), reverse=True)[num_kept - 1]

    def restore(self, number: int, curve: Mapping[int, float]) -> None:
        """Enters an earlier trial into every rung that it reached."""
        for epoch in self._rungs:
            if curve and epoch <= max(curve):
                self.goes_on(number, {e: v for e, v in curve.items() if e <= epoch})
