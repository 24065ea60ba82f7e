"""Which trials a search delivers."""

from collections.abc import Sequence

import numpy as np

from hpo import pareto
from hpo.config.schema import PAUSING, SearchConfig, StudyConfig
from hpo.study.trial import TrialSummary


def selected(trials: Sequence[TrialSummary], config: StudyConfig) -> tuple[TrialSummary, ...]:
    """By `select`, the first for best/: of the COMPLETE trials that keep to the constraints.

    best: the best one by the metric, the earliest among equals. knee: that of the Pareto front.
    front: the knee, then the others by the metric.
    """
    on_front = pareto_front(trials, config)
    if not on_front or config.select == "best":
        return on_front[:1]
    knee = on_front[pareto.knee(_losses(on_front, config))]
    if config.select == "knee":
        return (knee,)
    return (knee, *(trial for trial in on_front if trial.number != knee.number))


def best_so_far(
    trials: Sequence[TrialSummary], config: SearchConfig
) -> tuple[TrialSummary, float] | None:
    """The trial with the best value of those that may win yet, and the value.

    Where trials are paused, that may be one which has not come to its end.
    """
    if config.scheduler.name not in PAUSING or config.study.has_several_objectives:
        best = next(iter(selected(trials, config.study)), None)
        return None if best is None or best.value is None else (best, best.value)
    objective = config.study.objective
    values = {
        t.number: t.best_value(objective.best)
        for t in trials
        if t.state != "FAIL" and t.is_feasible
    }
    known = {number: value for number, value in values.items() if value is not None}
    number = objective.best_key(known)
    if number is None:
        return None
    return next(t for t in trials if t.number == number), known[number]


def pareto_front(trials: Sequence[TrialSummary], config: StudyConfig) -> tuple[TrialSummary, ...]:
    """COMPLETE, feasible trials that no other one is better than in every way, by the metric.

    Of several with the same values the earliest; with one objective that is the best trial.
    """
    able = [t for t in trials if t.state == "COMPLETE" and t.value is not None and t.is_feasible]
    if not able:
        return ()
    losses = _losses(able, config)
    on_front = pareto.front(losses)
    _, first = np.unique(losses, axis=0, return_index=True)
    rows = [row for row in sorted(first.tolist()) if on_front[row]]
    sign = config.objective.sign
    return tuple(sorted((able[row] for row in rows), key=lambda t: -sign * (t.value or 0.0)))


def objective_values(trial: TrialSummary, config: StudyConfig) -> dict[str, float | None]:
    """By name, as far as they are known."""
    names = (name for name, _ in config.objectives)
    return {
        name: trial.value if name == config.metric else trial.attributes.get(name)
        for name in names
    }


def _losses(trials: Sequence[TrialSummary], config: StudyConfig) -> pareto.FloatArray:
    """(N, objectives), the smaller the better."""
    signs = [-1.0 if direction == "maximize" else 1.0 for _, direction in config.objectives]
    values = [list(objective_values(trial, config).values()) for trial in trials]
    losses: pareto.FloatArray = np.array(signs) * np.array(values, dtype=np.float64)
    return losses
