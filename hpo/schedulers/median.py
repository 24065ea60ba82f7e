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
    """Stops a trial whose best value is worse than the median of other trials' averages.

    Each other trial is averaged over its values up to the same epoch. So a trial is stopped if
    even its best epoch does not reach the usual value so far. Trial 0, the default configuration,
    is compared with but never stopped.

    Args:
        config: Has the first epoch at which trials are compared.
        maximise: Whether a larger value is better.
    """

    point = "epoch"

    def __init__(self, config: SchedulerConfig, *, maximise: bool) -> None:
        self._min_epochs = config.min_epochs or DEFAULT_MIN_EPOCHS
        self._sign = 1.0 if maximise else -1.0
        self._averages: defaultdict[int, dict[int, float]] = defaultdict(dict)

    def standing(self, number: int, epoch: int) -> tuple[int, int] | None:
        """None: a trial is compared with a median."""
        return None

    def stops_at(
        self, number: int, curve: Mapping[int, float], costs: Sequence[float] = ()
    ) -> int | None:
        """The first epoch at which a trial falls behind; None: the trial goes on.

        The trial is judged at every epoch of its curve (the objective by epoch) where it was not
        judged before: after a crash, one report may bring several epochs. `costs` are not used:
        a median is of one objective.
        """
        behind = [
            epoch
            for epoch in sorted(curve)
            if epoch >= self._min_epochs
            and number not in self._averages[epoch]
            and not self._stands(number, epoch, curve)
        ]
        return behind[0] if behind else None

    def _stands(self, number: int, epoch: int, curve: Mapping[int, float]) -> bool:
        """Adds a trial's average at an epoch; returns whether it keeps up with the others."""
        past = [self._sign * v for e, v in curve.items() if e <= epoch and not math.isnan(v)]
        others = tuple(self._averages[epoch].values())
        self._averages[epoch][number] = statistics.fmean(past) if past else -math.inf
        if number == 0 or len(others) < MIN_OTHERS:
            return True
        return max(past, default=-math.inf) >= statistics.median(others)
