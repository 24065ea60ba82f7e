"""The scheduler that `scheduler.name` of a search file asks for."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hpo.config.schema import SchedulerConfig, SearchConfig
from hpo.config.search_space import Params
from hpo.schedulers.asha import AsynchronousHalving, Promotion
from hpo.schedulers.base import Scheduler
from hpo.schedulers.first_rung import read_first_rungs, with_first_rung
from hpo.schedulers.hyperband import Hyperband
from hpo.schedulers.median import MedianStopping
from hpo.schedulers.stopping import NoStopping, StoppingRule, StoppingScheduler


def make_scheduler(
    config: SearchConfig,
    first_levels: Sequence[Mapping[str, Any]] = (),
    costs_of: Callable[[Params], tuple[float, ...]] = lambda _params: (),
    is_allowed: Callable[[Params], bool] | None = None,
) -> Scheduler:
    """A new scheduler, which knows of no trial yet.

    Args:
        config: The config of the search.
        first_levels: The first rungs that were chosen so far, as the study keeps them.
        costs_of: Returns a configuration's objectives that are costs; smaller is better.
        is_allowed: Says whether a configuration keeps the constraints on its architecture; None:
            each one does. Only freeze_thaw uses it: with others the sampler draws new trials.
    """
    max_epochs, objective = config.train.max_epochs, config.study.objective
    if config.scheduler.name == "freeze_thaw":
        from hpo.schedulers.freeze_thaw import FreezeThaw  # SciPy takes a second to import

        thaw = FreezeThaw(
            config.space,
            max_epochs,
            maximise=objective.maximises,
            seed=config.study.seed,
            first_rung=config.scheduler.min_epochs,
            is_allowed=is_allowed,
        )
        thaw.set_first_rungs(read_first_rungs(first_levels))
        return thaw
    scheduler = with_first_rung(config.scheduler, first_levels)
    if scheduler.name == "asha_promotion":
        return Promotion(scheduler, max_epochs, maximise=objective.maximises)
    rule = _stopping_rule(scheduler, max_epochs, maximise=objective.maximises)
    first_rung = max_epochs if scheduler.name == "none" else scheduler.min_epochs or 1
    return StoppingScheduler(rule, max_epochs, first_rung, costs_of)


def _stopping_rule(config: SchedulerConfig, max_epochs: int, *, maximise: bool) -> StoppingRule:
    if config.name == "median":
        return MedianStopping(config, maximise=maximise)
    if config.name == "hyperband":
        return Hyperband(config, max_epochs, maximise=maximise)
    if config.name == "none":
        return NoStopping()
    return AsynchronousHalving(config, max_epochs, maximise=maximise)
