"""Which trials a search delivers: constraints, Pareto fronts, `study.select`, the best so far."""

from collections.abc import Sequence

import numpy as np

from hpo import pareto
from hpo.config.objectives import Objective
from hpo.config.schema import PAUSING, SearchConfig, StudyConfig
from hpo.study.trial import TrialStatus, TrialSummary


def selected(trials: Sequence[TrialSummary], config: StudyConfig) -> tuple[TrialSummary, ...]:
    """The trials that `study.select` names, of the COMPLETE ones within the constraints.

    The first is best/'s. best: the best one by the metric, the earliest among equals. knee: the
    knee of the Pareto front. front: the knee, then the others of the front by the metric.
    """
    front = pareto_front(trials, config)
    if not front or config.select == "best":
        return front[:1]
    knee = front[pareto.knee(_losses(front, config))]
    if config.select == "knee":
        return (knee,)
    return (knee, *(trial for trial in front if trial.number != knee.number))


def best_so_far(
    trials: Sequence[TrialSummary], config: SearchConfig
) -> tuple[TrialSummary, float] | None:
    """The trial with the best value of those that may win yet, and that value; None: no such.

    Where trials are paused, that may be one which has not come to its end.
    """
    objective = config.study.objective
    if config.scheduler.name not in PAUSING or config.study.has_several_objectives:
        first = selected(trials, config.study)[:1]
        return next(((trial, trial.value) for trial in first if trial.value is not None), None)
    values = {
        i: value
        for i, trial in enumerate(trials)
        if trial.state != TrialStatus.FAIL
        and trial.is_feasible
        and (value := trial.best_value(objective.best)) is not None
    }
    best = objective.best_key(values)
    return None if best is None else (trials[best], values[best])


def pareto_front(trials: Sequence[TrialSummary], config: StudyConfig) -> tuple[TrialSummary, ...]:
    """COMPLETE, feasible trials that no other one is better than in every way, by the metric.

    Of several with the same values the earliest; with one objective that is the best trial.
    """
    able = [
        trial
        for trial in trials
        if trial.state == TrialStatus.COMPLETE and trial.value is not None and trial.is_feasible
    ]
    if not able:
        return ()
    losses = _losses(able, config)
    on_front = pareto.front(losses)
    _, first = np.unique(losses, axis=0, return_index=True)
    front = [able[row] for row in sorted(first.tolist()) if on_front[row]]
    return tuple(sorted(front, key=lambda trial: config.objective.loss(trial.value or 0.0)))


def objective_values(trial: TrialSummary, config: StudyConfig) -> dict[str, float | None]:
    """The trial's value of each objective, by the objective's name; None: not known yet."""
    names = (name for name, _ in config.objectives)
    return {
        name: trial.value if name == config.metric else trial.attributes.get(name)
        for name in names
    }


def _losses(trials: Sequence[TrialSummary], config: StudyConfig) -> pareto.FloatArray:
    """The trials' values as an array (N, objectives), turned so that smaller is better."""
    signs = [-Objective(name, direction).sign for name, direction in config.objectives]
    values = [list(objective_values(trial, config).values()) for trial in trials]
    losses: pareto.FloatArray = np.array(signs) * np.array(values, dtype=np.float64)
    return losses
