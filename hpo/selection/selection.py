"""Selects the trials to deliver: constraints, Pareto fronts, `study.select`, the best so far."""

from collections.abc import Sequence

import numpy as np

from hpo import pareto
from hpo.config.objectives import Objective
from hpo.config.schema import PAUSING, SearchConfig, StudyConfig
from hpo.study.trial import TrialStatus, TrialSummary


def selected(trials: Sequence[TrialSummary], config: StudyConfig) -> tuple[TrialSummary, ...]:
    """The COMPLETE, feasible trials that `study.select` selects; the first goes into best/.

    best: the trial with the best metric, the earliest among equals. knee: the knee of the Pareto
    front. front: the knee, then the rest of the front, best metric first.
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
    """The trial with the best value of all that may win, and this value; None: no trial may win.

    With a scheduler that pauses trials, stopped, paused and running trials may win, too.
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
    """The COMPLETE, feasible trials that no other such trial dominates, best metric first.

    Of trials with equal values only the earliest is kept. With one objective the front is the
    best trial alone.
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
    """The trial's value of each objective, by name; None: not known yet."""
    names = (name for name, _ in config.objectives)
    return {
        name: trial.value if name == config.metric else trial.attributes.get(name)
        for name in names
    }


def _losses(trials: Sequence[TrialSummary], config: StudyConfig) -> pareto.FloatArray:
    """The trials' losses (N, objectives): their values, negated where larger is better."""
    signs = [-Objective(name, direction).sign for name, direction in config.objectives]
    values = [list(objective_values(trial, config).values()) for trial in trials]
    losses: pareto.FloatArray = np.array(signs) * np.array(values, dtype=np.float64)
    return losses
