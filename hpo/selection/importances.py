"""Parameter importances: Optuna's PED-ANOVA over the values of a search."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import stdev
from typing import Final

import optuna

from hpo.config.schema import SearchConfig
from hpo.config.search_space import Params, suggest_params
from hpo.engine.architectures import ArchitectureCosts
from hpo.selection.ranking import model_of
from hpo.study.study import SearchStudy
from hpo.study.trial import TrialStatus, TrialSummary

MIN_TRIALS: Final = 8
NUM_SURVEYED: Final = 512
NUM_RESAMPLES: Final = 20
MOST_RESAMPLED: Final = 300  # trials of a resample, which take some 0.1 s
NORMAL_95: Final = 1.96

Results = list[tuple[Params, float]]


@dataclass(frozen=True)
class Importance:
    """A parameter's share of the importance.

    Attributes:
        share: 0 to 1.
        low: The lower end of its 95 % interval, over other trials; None: not known.
        high: The upper end.
    """

    share: float
    low: float | None = None
    high: float | None = None


def importances(study: SearchStudy, config: SearchConfig) -> dict[str, float]:
    """Each parameter's share of the importance, 0 to 1, the largest first.

    Computed from the values of COMPLETE trials; with scheduler freeze_thaw, where few trials are
    COMPLETE, from values that the surrogate predicts all over the space. Empty if fewer than
    MIN_TRIALS values are known, or all are equal.
    """
    return _shares(_results(study, config), config)


def importances_with_intervals(study: SearchStudy, config: SearchConfig) -> dict[str, Importance]:
    """As `importances`, with intervals by resampling the trials.

    There are none with scheduler freeze_thaw: resampling what its surrogate predicts would say
    nothing of how sure the surrogate is.
    """
    results = _results(study, config)
    shares = _shares(results, config)
    if config.scheduler.name == "freeze_thaw" or not shares:
        return {path: Importance(share) for path, share in shares.items()}
    spreads = _spreads(results, shares, config)
    return {
        path: Importance(share, max(0.0, share - spreads[path]), min(1.0, share + spreads[path]))
        if path in spreads
        else Importance(share)
        for path, share in shares.items()
    }


def _spreads(results: Results, shares: dict[str, float], config: SearchConfig) -> dict[str, float]:
    """Half the width of each share's interval, by bootstrap; of fewer trials where many are."""
    draw, num = random.Random(config.study.seed), min(len(results), MOST_RESAMPLED)
    again = [_shares(draw.choices(results, k=num), config) for _ in range(NUM_RESAMPLES)]
    drawn = [one for one in again if one]
    if len(drawn) < NUM_RESAMPLES / 2:
        return {}
    scale = NORMAL_95 * math.sqrt(num / len(results))
    return {path: scale * stdev(one.get(path, 0.0) for one in drawn) for path in shares}


def _results(study: SearchStudy, config: SearchConfig) -> Results:
    trials = study.trials()
    is_by_model = config.scheduler.name == "freeze_thaw"
    return _predicted(study, config, trials) if is_by_model else _reached(trials)


def _shares(results: Results, config: SearchConfig) -> dict[str, float]:
    values = [value for _, value in results]
    if len(values) < MIN_TRIALS or math.isclose(min(values), max(values), rel_tol=1e-6):
        return {}
    known = optuna.create_study(direction=config.study.objective.direction)
    for params, value in results:
        fixed = optuna.trial.FixedTrial(dict(params))
        suggest_params(fixed, config.space)
        known.add_trial(
            optuna.create_trial(
                params=fixed.params, distributions=fixed.distributions, value=value
            )
        )
    try:
        return optuna.importance.get_param_importances(known)
    except (ValueError, RuntimeError, ZeroDivisionError):
        return {}


def _reached(trials: Sequence[TrialSummary]) -> Results:
    return [
        (t.params, t.value)
        for t in trials
        if t.state == TrialStatus.COMPLETE and t.value is not None
    ]


def _predicted(
    study: SearchStudy, config: SearchConfig, trials: Sequence[TrialSummary]
) -> Results:
    if sum(_teaches(trial) for trial in trials) < MIN_TRIALS:
        return []
    is_allowed = ArchitectureCosts(config, study.metadata.architectures).is_allowed
    model = model_of(
        config, trials, study.metadata.model_state, study.metadata.first_levels, is_allowed
    )
    return model.survey(NUM_SURVEYED)


def _teaches(trial: TrialSummary) -> bool:
    return trial.state != TrialStatus.FAIL and any(map(math.isfinite, trial.curve.values()))
