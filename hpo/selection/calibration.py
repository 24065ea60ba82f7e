"""Whether the surrogate's forecasts came true: its intervals against what was measured."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hpo.config.schema import SearchConfig
from hpo.selection.ranking import model_of
from hpo.study.study import SearchStudy
from hpo.study.trial import TrialSummary

MOST_FORECASTS: Final = 30
LEAST_FORECASTS: Final = 8
UNLIKELY: Final = 0.02


@dataclass(frozen=True)
class Calibration:
    """How many of the values that came lay inside the surrogate's intervals.

    Attributes:
        num_inside: How many lay inside.
        num: How many came.
        share: The share that is to lie inside.
    """

    num_inside: int
    num: int
    share: float

    @property
    def is_too_sure(self) -> bool:
        """Whether so few lay inside as would be unlikely (2 %) if the intervals held."""
        miss, p = 1 - self.share, self.share
        chances = (
            math.comb(self.num, k) * p**k * miss ** (self.num - k)
            for k in range(self.num_inside + 1)
        )
        return sum(chances) < UNLIKELY


def calibration(
    study: SearchStudy, config: SearchConfig, trials: Sequence[TrialSummary]
) -> Calibration | None:
    """The surrogate's intervals against what came; None: too little has come, or it has none.

    Forecasts are not kept: they are made again, with the hyperparameters of the latest fit, for
    trials that went on from a rung, from what had begun before them.
    """
    state = study.metadata.model_state
    if config.scheduler.name != "freeze_thaw" or state is None:
        return None
    from hpo.surrogate.surrogate import FORECAST_SHARE

    model = model_of(config, trials, state, study.metadata.first_levels)
    if model.model_state is None:  # an earlier version's, whose forecasts were others
        return None
    found = model.forecasts_of_the_past(MOST_FORECASTS)
    if len(found) < LEAST_FORECASTS:
        return None
    inside = sum(expected.low[0] <= value <= expected.high[0] for value, expected in found)
    return Calibration(inside, len(found), FORECAST_SHARE)
