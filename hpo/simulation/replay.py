"""A study's trainings, replayed to another scheduler, sampler or number of slots."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpo.config.loading import clip
from hpo.config.schema import SearchConfig
from hpo.config.search_space import Params
from hpo.schedulers.first_rung import read_first_rungs
from hpo.selection.finalists import choose_finalists
from hpo.selection.ranking import predicted_ranking
from hpo.selection.selection import selected
from hpo.simulation.simulation import SimulatedSearch
from hpo.simulation.study_curves import StudyCurves
from hpo.study.study import SearchStudy
from hpo.study.trial import TrialSummary
from sgformer.config import validate


@dataclass(frozen=True)
class Replay:
    """What a strategy would have cost, and found.

    Attributes:
        scheduler: The strategy's scheduler.
        sampler: The strategy's sampler.
        num_slots: Trials at a time.
        seconds: Simulated seconds from the first epoch to the last.
        slot_seconds: Seconds of training, added up over all slots.
        num_epochs: Epochs trained, over all slots.
        states: How many trials ended as what.
        best_trial: The trial that would win, or lead the finalists; None: none came to its end.
        best_value: The objective at that trial's best epoch.
        best_params: That trial's params.
        share_recorded: Share of the epochs that the study has, 0 to 1; the others are predicted.
        num_surrogate_trials: Trials of another study that the predictions learnt from.
    """

    scheduler: str
    sampler: str
    num_slots: int
    seconds: float
    slot_seconds: float
    num_epochs: int
    states: Mapping[str, int]
    best_trial: int | None
    best_value: float | None
    best_params: Params | None
    share_recorded: float
    num_surrogate_trials: int


def replay(
    config: SearchConfig,
    trials: Sequence[TrialSummary],
    num_slots: int,
    scheduler: str | None = None,
    sampler: str | None = None,
    others: Sequence[TrialSummary] = (),
    architectures: Mapping[str, Mapping[str, float]] | None = None,
    warm_start: Sequence[Params] = (),
    first_levels: Sequence[Mapping[str, Any]] = (),
) -> Replay:
    """What another strategy would have made of a study's trainings.

    With the study's own scheduler, sampler and one slot it decides what a search on one slot did.

    Args:
        config: The search's.
        trials: Its study's trials.
        num_slots: Trials at a time.
        scheduler: The other strategy's scheduler; None: the search's own.
        sampler: The other strategy's sampler; None: the search's own, or the one that goes with
            the scheduler.
        others: Another study's trials; see StudyCurves.
        architectures: What each architecture costs, where the search has to know.
        warm_start: The params that the search was begun with, as the study keeps them.
        first_levels: The study's `first_levels`; only those of earlier studies are begun with.

    Raises:
        ConfigError: No such scheduler or sampler, or they do not go together.
        StudyError: There is no curve to learn from.
    """
    config = _with_strategy(config, scheduler, sampler)
    curves = StudyCurves(config, trials, others)
    study = _new_study(config, warm_start, first_levels)
    search = SimulatedSearch(config, curves, num_slots, study, architectures)
    search.run()
    return _summary(config, search, curves, num_slots, len(others))


def _new_study(
    config: SearchConfig, warm_start: Sequence[Params], first_levels: Sequence[Mapping[str, Any]]
) -> SearchStudy:
    """An empty study, which knows what earlier studies had told the one that is replayed."""
    study = SearchStudy.in_memory(config.study, config.space)
    study.metadata.warm_start = warm_start
    study.metadata.first_levels = [
        one.model_dump(mode="json")
        for one in read_first_rungs(first_levels)
        if one.is_of_earlier_studies
    ]
    return study


def _summary(
    config: SearchConfig,
    search: SimulatedSearch,
    curves: StudyCurves,
    num_slots: int,
    num_surrogate_trials: int,
) -> Replay:
    """What the simulated search has cost, and found."""
    done, best = search.study.trials(), _winner(config, search)
    recorded = sum(min(t.num_epochs, curves.num_recorded(t.params)) for t in done)
    return Replay(
        scheduler=config.scheduler.name or "",
        sampler=config.study.sampler or "",
        num_slots=num_slots,
        seconds=search.now,
        slot_seconds=search.seconds,
        num_epochs=search.num_epochs,
        states=dict(Counter(trial.outcome for trial in done)),
        best_trial=None if best is None else best.number,
        best_value=None if best is None else best.best_value(config.study.objective.best),
        best_params=None if best is None else dict(best.params),
        share_recorded=recorded / max(1, search.num_epochs),
        num_surrogate_trials=num_surrogate_trials,
    )


def _winner(config: SearchConfig, search: SimulatedSearch) -> TrialSummary | None:
    """The trial that would lead the finalists, or the winner where there are none."""
    study, trials = search.study, search.study.trials()
    if not config.compares_finalists:
        return next(iter(selected(trials, config.study)), None)
    ranking = predicted_ranking(
        config, trials, study.metadata.model_state, study.metadata.first_levels
    )
    first = choose_finalists(trials, ranking, 1, config.space)
    return next((trial for trial in trials if trial.number in first[:1]), None)


def _with_strategy(
    config: SearchConfig, scheduler: str | None, sampler: str | None
) -> SearchConfig:
    """The search with another scheduler or sampler; None: its own, as far as they go together."""
    if scheduler is None and sampler is None:
        return config
    values = config.model_dump()
    if scheduler is not None and scheduler != config.scheduler.name:
        values["scheduler"] = {"name": scheduler}
        values["study"]["sampler"] = None
    if sampler is not None:
        values["study"]["sampler"] = sampler
        if scheduler is None and config.scheduler.name == "freeze_thaw" and sampler != "curves":
            values["scheduler"] = {"name": "asha"}
    if values["scheduler"]["name"] != "freeze_thaw":
        values["budget"]["stop_when"] = None  # it asks freeze_thaw's surrogate
    return clip(validate(SearchConfig, values, "simulate"))[0]
