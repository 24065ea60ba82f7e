"""The median stopping rule: which trials stop at which epoch.

Source: Golovin et al., "Google Vizier: A Service for Black-Box Optimization", KDD 2017,
section 3.2.2.
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

from hpo.config.schema import DEFAULT_MIN_EPOCHS, SchedulerConfig

MIN_OTHERS: Final = 5  # Source: Optuna's MedianPruner, n_startup_trials.


class MedianStopping:
    """A trial stops when its best value is worse than the median of the others' averages.

    These are of each other trial's values up to the same epoch, so a weak trial is one whose best
    epoch does not reach what is usual on the way. Trial 0, the default configuration, is
    compared with but never stopped.

    Args:
        config: The first epoch at which trials are compared.
        maximise: Whether a larger value is better.
    """

    def __init__(self, config: SchedulerConfig, *, maximise: bool) -> None:
        self._min_epochs = config.min_epochs or DEFAULT_MIN_EPOCHS
        self._sign = 1.0 if maximise else -1.0
        self._averages: defaultdict[int, dict[int, float]] = defaultdict(dict)

    def goes_on(
        self, number: int, curve: Mapping[int, float], costs: Sequence[float] = ()
    ) -> bool:
        """Whether a trial continues after the epochs of its curve (metric by epoch).

        It must stand at every epoch that it was not judged at: after a crash, several may come
        in one report. There are no `costs`: a median is of one objective.
        """
        verdicts = [
            self._stands(number, epoch, curve)
            for epoch in sorted(curve)
            if epoch >= self._min_epochs and number not in self._averages[epoch]
        ]
        return all(verdicts)

    def _stands(self, number: int, epoch: int, curve: Mapping[int, float]) -> bool:
        """Adds the trial to those compared at an epoch; whether it keeps up with the others."""
        past = [self._sign * v for e, v in curve.items() if e <= epoch and not math.isnan(v)]
        others = tuple(self._averages[epoch].values())
        self._averages[epoch][number] = statistics.fmean(past) if past else -math.inf
        if number == 0 or len(others) < MIN_OTHERS:
            return True
        return max(past, default=-math.inf) >= statistics.median(others)
