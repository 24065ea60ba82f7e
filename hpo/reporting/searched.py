"""Searched: a search as the health checks look at it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Self

from hpo.config.schema import SearchConfig
from hpo.engine.budget import Budget
from hpo.engine.ledger import TrialLedger
from hpo.schedulers.first_rung import FirstRung, read_first_rungs
from hpo.selection.calibration import Calibration
from hpo.selection.intervals import margin_by_images
from hpo.selection.verdict import SHARES_OF_IMAGES, Verdict
from hpo.study.study import SearchStudy
from hpo.study.trial import TrialStatus, TrialSummary

TRIALS_A_PARAMETER: Final = 2  # fewer cannot tell parameters apart
LEAST_TRIALS: Final = 8


@dataclass(frozen=True)
class Searched:
    """A search as the checks look at it.

    Attributes:
        config: The config of the search.
        trials: The trials of the study.
        verdict: The finalists' comparison on fresh seeds; None: there is none (yet).
        num_val_images: The number of images in val; None: not known.
        first_rung: The first rung that learning curves chose last; None: none.
        importances: Each parameter's share of the importance; empty: not known.
        calibration: The surrogate's forecasts against what came; None: not known.
        budget_share: How much of the budget is used, 0 to 1; 0: nothing, or there is none.
        is_limited: Whether the budget has ended the search.
    """

    config: SearchConfig
    trials: Sequence[TrialSummary]
    verdict: Verdict | None = None
    num_val_images: int | None = None
    first_rung: FirstRung | None = None
    importances: Mapping[str, float] | None = None
    calibration: Calibration | None = None
    budget_share: float = 0.0
    is_limited: bool = False

    @classmethod
    def of(
        cls,
        config: SearchConfig,
        study: SearchStudy,
        trials: Sequence[TrialSummary],
        verdict: Verdict | None,
        importances: Mapping[str, float] | None = None,
        calibration: Calibration | None = None,
    ) -> Self:
        """The search of a study, with what the study keeps beside its trials."""
        images, rungs = study.metadata.images or {}, read_first_rungs(study.metadata.first_levels)
        ledger = TrialLedger(config.study.objective, trials)
        budget = Budget.of_study(config, study, ledger=ledger)
        return cls(
            config,
            trials,
            verdict,
            images.get("val"),
            rungs[-1] if rungs else None,
            importances,
            calibration,
            budget.share_taken,
            is_limited=study.metadata.limits_reached == config.limits,
        )

    @cached_property
    def trained(self) -> list[TrialSummary]:
        """The trials that have started."""
        return [t for t in self.trials if t.outcome != TrialStatus.INFEASIBLE]

    @property
    def num_wanted(self) -> int:
        """How many trials a space of so many parameters wants."""
        return max(LEAST_TRIALS, TRIALS_A_PARAMETER * len(self.config.space))

    @cached_property
    def ranked(self) -> list[tuple[float, TrialSummary]]:
        """Trials that may win with their best values so far, the best first."""
        objective = self.config.study.objective
        found = [
            (value, trial)
            for trial in self.trained
            if trial.state != TrialStatus.FAIL
            and trial.is_feasible
            and (value := trial.best_value(objective.best)) is not None
            and math.isfinite(value)
        ]
        return sorted(found, key=lambda one: objective.loss(one[0]))

    def margin(self, value: float) -> float | None:
        """Half the 95 % interval of a value by the val images; None: it is no share of them."""
        if self.config.study.metric not in SHARES_OF_IMAGES or not self.num_val_images:
            return None
        return margin_by_images(value, self.num_val_images)
