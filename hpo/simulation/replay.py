"""Replays a study's trainings with another scheduler, sampler or number of slots."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpo.config.clipping import clip
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
from sgformer.validation import validate


@dataclass(frozen=True)
class Replay:
    """The cost and the result that a strategy would have had.

    Attributes:
        scheduler: The strategy's scheduler.
        sampler: The strategy's sampler.
        num_slots: How many trials run at a time.
        seconds: Simulated seconds from the start of the search to the end of its last epoch.
        slot_seconds: Simulated seconds of training, summed over all slots.
        num_epochs: Epochs trained, summed over all trials.
        states: The number of trials by their state at the end.
        best_trial: The trial that would win, or lead the finalists; None: there is none.
        best_value: The metric at the best epoch of `best_trial`.
        best_params: The params of `best_trial`.
        share_recorded: The share of epochs recorded in the study, 0 to 1; the others are
            predicted.
        num_surrogate_trials: How many trials of another study the predictions use.
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
    """Runs another strategy on a study's trainings, on a simulated clock.

    With the study's own scheduler and sampler, one slot repeats the decisions of a search that
    ran on one slot.

    Args:
        config: The config of the search.
        trials: All trials of its study.
        num_slots: How many trials run at a time.
        scheduler: The scheduler of the strategy; None: the search's own.
        sampler: The sampler of the strategy; None: the search's own, or the scheduler's default.
        others: Another study's trials; see StudyCurves.
        architectures: The costs of each architecture, if objectives or constraints name costs.
        warm_start: The params from earlier studies that the search tried first.
        first_levels: The study's first rungs; only the one from earlier studies is used.

    Raises:
        ConfigError: The scheduler or sampler does not exist, or they do not fit together.
        StudyError: There is no learning curve to learn from.
    """
    config = with_strategy(config, scheduler, sampler)
    curves = StudyCurves(config, trials, others)
    study = _new_study(config, warm_start, first_levels)
    search = SimulatedSearch(config, curves, num_slots, study, architectures)
    search.run()
    return _summary(config, search, curves, num_slots, len(others))


def _new_study(
    config: SearchConfig, warm_start: Sequence[Params], first_levels: Sequence[Mapping[str, Any]]
) -> SearchStudy:
    """An empty study with the warm start and first rung that the replayed study began with."""
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
    """The cost and the result of the simulated search."""
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
    """The first finalist; without a comparison of finalists the trial of `study.select`."""
    study, trials = search.study, search.study.trials()
    if not config.compares_finalists:
        return next(iter(selected(trials, config.study)), None)
    ranking = predicted_ranking(
        config, trials, study.metadata.model_state, study.metadata.first_levels
    )
    first = choose_finalists(trials, ranking, 1, config.space)
    return next((trial for trial in trials if trial.number in first[:1]), None)


def with_strategy(
    config: SearchConfig, scheduler: str | None, sampler: str | None
) -> SearchConfig:
    """The config with another scheduler or sampler; None: its own, if the two fit together."""
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
        values["budget"]["stop_when"] = None  # stop_when needs freeze_thaw's surrogate
    return clip(validate(SearchConfig, values, "simulate"))[0]
