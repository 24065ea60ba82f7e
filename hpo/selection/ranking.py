"""Ranks trials by the final values that the surrogate predicts, or by their values."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hpo.config.schema import SearchConfig
from hpo.config.search_space import Params
from hpo.schedulers.base import replay_into
from hpo.schedulers.first_rung import read_first_rungs
from hpo.selection.selection import pareto_front
from hpo.study.trial import TrialStatus, TrialSummary

if TYPE_CHECKING:
    from hpo.schedulers.freeze_thaw import FreezeThaw


def predicted_ranking(
    config: SearchConfig,
    trials: Sequence[TrialSummary],
    model_state: list[float] | None = None,
    first_levels: Sequence[Mapping[str, Any]] = (),
) -> tuple[int, ...]:
    """Numbers of trials, the most promising first.

    A surrogate of all learning curves predicts each trial's final value, also for trials that
    were stopped or paused. With scheduler `none` and with several objectives, trials are ranked
    by their values instead, and trials without a value are left out; with several objectives
    the Pareto front comes first.

    Args:
        config: The config of the search.
        trials: All trials of the study.
        model_state: GP hyperparameters that the surrogate's fit starts from; None: the priors.
        first_levels: The first rungs that the study stores.
    """
    if config.ranks_by_curves:
        return model_of(config, trials, model_state, first_levels).ranking()
    losses = {
        t.number: config.study.objective.loss(t.value) for t in trials if t.value is not None
    }
    by_value = sorted(losses, key=lambda number: (losses[number], number))
    front = pareto_front(trials, config.study) if config.study.has_several_objectives else ()
    return tuple(dict.fromkeys((*(trial.number for trial in front), *by_value)))


def model_of(
    config: SearchConfig,
    trials: Sequence[TrialSummary],
    model_state: list[float] | None = None,
    first_levels: Sequence[Mapping[str, Any]] = (),
    is_allowed: Callable[[Params], bool] | None = None,
) -> "FreezeThaw":
    """A scheduler freeze_thaw whose surrogate has learnt the curves of these trials.

    Args:
        config: The config of the search.
        trials: All trials of the study; of a RUNNING trial the curve so far is learnt.
        model_state: GP hyperparameters that the surrogate's fit starts from; None: the priors.
        first_levels: The first rungs that the study stores.
        is_allowed: Says whether params are feasible to train; None: all are.
    """
    from hpo.schedulers.freeze_thaw import FreezeThaw

    thaw = FreezeThaw(
        config.space,
        config.train.max_epochs,
        maximise=config.study.objective.maximises,
        seed=config.study.seed,
        first_rung=config.scheduler.min_epochs,
        is_allowed=is_allowed,
    )
    replay_into(thaw, trials)
    for trial in trials:
        if trial.state == TrialStatus.RUNNING:
            thaw.pruned(trial.number)
    thaw.model_state = model_state
    thaw.set_first_rungs(read_first_rungs(first_levels))
    return thaw
