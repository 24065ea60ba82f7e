"""A study's curves, replayed to other strategies; what was not trained is told by a model."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from hpo.config.loading import clip
from hpo.config.schema import SearchConfig
from hpo.config.search_space import Params, params_key
from hpo.errors import StudyError
from hpo.schedulers.first_rung import read_first_levels
from hpo.selection.finalists import choose_finalists
from hpo.selection.ranking import predicted_ranking
from hpo.selection.selection import selected
from hpo.simulation.simulation import Curve, SimulatedSearch
from hpo.study.study import SearchStudy
from hpo.study.trial import TrialSummary
from hpo.surrogate.arrays import FloatArray
from hpo.surrogate.encoding import UnitCube
from hpo.surrogate.gp import CurveModel
from hpo.surrogate.output_warp import OutputWarp
from hpo.surrogate.rows import Rows
from sgformer.config import maximises, validate

MAX_ROWS: Final = 400
EPOCHS_A_TRIAL: Final = 6

_Row = tuple[FloatArray, int, float]  # point, epoch, value; more is better


@dataclass(frozen=True)
class Replay:
    """What a strategy would have cost, and found.

    Attributes:
        scheduler, sampler, num_slots: The strategy.
        seconds: From the first epoch to the last.
        slot_seconds: Of training, over all slots.
        num_epochs: Likewise.
        states: How many trials ended as what.
        best_trial: That would win, or lead the finalists; None: no trial came to its end.
        best_value: Its best epoch's.
        best_params: Its params.
        share_recorded: Of the epochs, those that the study has; the others are the model's.
        num_surrogate_trials: Of another study, which the model has learnt from as well.
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


class StudyCurves:
    """The training of any params: recorded where the study has it, else predicted.

    Args:
        config: Of the search.
        trials: Of its study.
        others: Of another study, with params of this space; only the model knows them.

    Raises:
        StudyError: There is no curve to learn from.
    """

    def __init__(
        self,
        config: SearchConfig,
        trials: Sequence[TrialSummary],
        others: Sequence[TrialSummary] = (),
    ) -> None:
        known = [trial for trial in trials if trial.curve]
        learnt = (*known, *others)
        if not any(math.isfinite(v) for trial in learnt for v in trial.curve.values()):
            raise StudyError(f"study {config.study.name!r} has no epochs to replay")
        self._max_epochs = config.train.max_epochs
        self._sign = 1.0 if maximises(config.study.metric) else -1.0
        self._space = config.space
        self._cube = UnitCube(config.space)
        self._recorded = {params_key(trial.params, config.space): trial for trial in known}
        seconds = [_seconds_an_epoch(trial) for trial in known or others]
        self._seconds = float(np.median([s for s in seconds if s is not None] or [1.0]))
        self._scale, self._model = self._fit(known, others)

    def __call__(self, params: Params) -> Curve:
        trial = self._recorded.get(params_key(params, self._space))
        predicted = self._predict(params)
        if trial is None:
            return Curve(predicted, [self._seconds] * self._max_epochs)
        values = [trial.curve[epoch] for epoch in sorted(trial.curve)]
        if trial.attributes.get("end_reason") not in {"early_stopped", "diverged"}:
            values += predicted[len(values) :]
        seconds = _seconds_an_epoch(trial) or self._seconds
        return Curve(values, [seconds] * len(values))

    def num_recorded(self, params: Params) -> int:
        """Epochs of the params' curve that the study has."""
        trial = self._recorded.get(params_key(params, self._space))
        return 0 if trial is None else trial.num_epochs

    def _times(self, epochs: Sequence[int]) -> FloatArray:
        if self._max_epochs == 1:
            return np.ones(len(epochs))
        times: FloatArray = np.log(np.array(epochs, float)) / math.log(self._max_epochs)
        return times

    def _fit(
        self, trials: Sequence[TrialSummary], others: Sequence[TrialSummary]
    ) -> tuple[OutputWarp, CurveModel]:
        """Of both studies; the other one has at most half of the rows, unless there is room."""
        own, theirs = self._rows(trials), self._rows(others)
        own = _thinned(own, MAX_ROWS - min(len(theirs), MAX_ROWS // 2))
        rows = own + _thinned(theirs, MAX_ROWS - len(own))
        values = np.array([value for *_, value in rows])
        scale = OutputWarp(values)
        data = Rows(
            np.array([point for point, *_ in rows]),
            self._times([epoch for _, epoch, _ in rows]),
            scale.forward(values),
        )
        return scale, CurveModel(data, self._cube.is_categorical)

    def _rows(self, trials: Sequence[TrialSummary]) -> list[_Row]:
        """A few epochs of each trial, evenly spread over the logarithm, and its last."""
        rows = []
        for trial in trials:
            last = trial.num_epochs
            chosen = {round(e) for e in np.geomspace(1, last, EPOCHS_A_TRIAL)} | {last}
            rows += [
                (self._cube.encode(trial.params), epoch, self._sign * trial.curve[epoch])
                for epoch in sorted(chosen)
                if math.isfinite(trial.curve.get(epoch, math.nan))
            ]
        return rows

    def _predict(self, params: Params) -> list[float]:
        points = np.repeat(self._cube.encode(params)[None], self._max_epochs, axis=0)
        times = self._times(range(1, self._max_epochs + 1))
        mean, _ = self._model.predict(points, times, with_sd=False)
        values: list[float] = (self._sign * self._scale.backward(mean)).tolist()
        return values


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

    With the study's own scheduler, sampler and one slot, what a search on one slot decided.

    Args:
        config: Of the search.
        trials: Of its study.
        num_slots: Trials at a time.
        scheduler: Of the other strategy; None: the search's own.
        sampler: Likewise; None: the search's own, or what goes with the scheduler.
        others: As of StudyCurves.
        architectures: What they cost, where the search has to know.
        warm_start: As the study keeps it: what earlier studies had the search begin with.
        first_levels: Likewise; of these only what earlier studies chose.

    Raises:
        ConfigError: No such scheduler or sampler, or they do not go together.
        StudyError: There is no curve to learn from.
    """
    if scheduler is not None or sampler is not None:
        config = _with_strategy(config, scheduler, sampler)
    curves = StudyCurves(config, trials, others)
    study = SearchStudy.in_memory(config.study, config.space)
    study.metadata.warm_start = warm_start
    study.metadata.first_levels = [
        one.model_dump(mode="json")
        for one in read_first_levels(first_levels)
        if one.is_of_earlier_studies
    ]
    search = SimulatedSearch(config, curves, num_slots, study, architectures)
    search.run()
    done = search.study.trials()
    best, pick = _winner(config, search), max if maximises(config.study.metric) else min
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
        best_value=None if best is None else best.best_value(pick),
        best_params=None if best is None else dict(best.params),
        share_recorded=recorded / max(1, search.num_epochs),
        num_surrogate_trials=len(others),
    )


def _winner(config: SearchConfig, search: SimulatedSearch) -> TrialSummary | None:
    """What would be first of the finalists, or is the winner where there are none."""
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
    values = config.model_dump()
    if scheduler is not None and scheduler != config.scheduler.name:
        values["scheduler"] = {"name": scheduler}
        values["study"]["sampler"] = None
    if sampler is not None:
        values["study"]["sampler"] = sampler
        if scheduler is None and config.scheduler.name == "freeze_thaw" and sampler != "curves":
            values["scheduler"] = {"name": "asha"}
    if values["scheduler"]["name"] != "freeze_thaw":
        values["budget"]["stop_when"] = None  # it asks the model of curves of freeze_thaw
    return clip(validate(SearchConfig, values, "simulate"))[0]


def _thinned(rows: list[_Row], most: int) -> list[_Row]:
    """So many of them, at random but always the same."""
    if len(rows) <= most:
        return rows
    kept = np.random.default_rng(0).permutation(len(rows))[:most]
    return [rows[i] for i in sorted(kept)]


def _seconds_an_epoch(trial: TrialSummary) -> float | None:
    seconds = trial.attributes.get("seconds")
    return None if not seconds else float(seconds) / max(1, trial.num_epochs)
