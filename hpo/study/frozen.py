"""Translates trials between Optuna's FrozenTrial and our TrialSummary."""

import math
from collections.abc import Mapping
from typing import Any

from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial

from hpo.config.schema import StudyConfig
from hpo.config.search_space import Params, Space, suggest_params
from hpo.study.trial import TrialStatus, TrialSummary


def summary_of(trial: FrozenTrial, config: StudyConfig) -> TrialSummary:
    """Optuna's trial as ours; only a COMPLETE trial has a value, the metric's.

    Optuna gives a pruned trial its last epoch's value, which is not its best one.
    """
    value = None
    if trial.state == TrialState.COMPLETE:
        names = [name for name, _ in config.objectives]
        value = trial.values[names.index(config.metric)]
    return TrialSummary(
        number=trial.number,
        state=TrialStatus(trial.state.name),
        value=value,
        params=dict(trial.params),
        curve=dict(sorted(trial.intermediate_values.items())),
        attributes=dict(trial.user_attrs),
        constraints=dict(trial.constraints),
    )


def frozen_of(
    trial: TrialSummary,
    params: Params,
    attributes: Mapping[str, Any],
    config: StudyConfig,
    space: Space,
) -> FrozenTrial:
    """Our trial as Optuna's, with `params` of `space` in place of its own.

    Args:
        trial: A trial of another study.
        params: The trial's params in `space`.
        attributes: User attributes that are added to the trial's own.
        config: Names the objectives.
        space: The search space of the study that the trial is for.
    """
    fixed = FixedTrial(params)
    suggest_params(fixed, space)
    values = None
    if trial.value is not None:
        values = objective_values(trial.value, trial.attributes, config)
    elif trial.state == TrialStatus.PRUNED and not config.has_several_objectives:
        last = trial.curve.get(trial.num_epochs, math.nan)  # as Optuna values a pruned trial
        values = None if math.isnan(last) else [last]
    return create_trial(
        state=TrialState[trial.state],
        values=values,
        params=params,
        distributions=fixed.distributions,
        user_attrs={**trial.attributes, **attributes},
        intermediate_values=dict(trial.curve),
        constraints=dict(trial.constraints),
    )


def objective_values(
    value: float, attributes: Mapping[str, Any], config: StudyConfig
) -> list[float]:
    """Values of all objectives in order: `value` for the metric, `attributes` for the costs."""
    names = (name for name, _ in config.objectives)
    return [value if name == config.metric else float(attributes[name]) for name in names]
