"""Parameter importances: Optuna's PED-ANOVA over the values of a search."""

import math
from collections.abc import Sequence
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

Results = list[tuple[Params, float]]


def importances(study: SearchStudy, config: SearchConfig) -> dict[str, float]:
    """Each parameter's share of the importance, 0 to 1, the largest first.

    Computed from the values of COMPLETE trials; with scheduler freeze_thaw, where few trials are
    COMPLETE, from values that the surrogate predicts all over the space. Empty if fewer than
    MIN_TRIALS values are known, or all are equal.
    """
    trials = study.trials()
    is_by_model = config.scheduler.name == "freeze_thaw"
    results = _predicted(study, config, trials) if is_by_model else _reached(trials)
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
