"""The learning curves of a replay: recorded in the study, or predicted by a Gaussian process."""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from hpo.config.schema import SearchConfig
from hpo.config.search_space import Params, params_key
from hpo.errors import StudyError
from hpo.simulation.simulation import Curve
from hpo.study.trial import EndReason, TrialSummary
from hpo.surrogate.arrays import FloatArray
from hpo.surrogate.encoding import UnitCube
from hpo.surrogate.gp import CurveModel
from hpo.surrogate.output_warp import OutputWarp
from hpo.surrogate.rows import Rows, log_times

MAX_ROWS: Final = 400
EPOCHS_A_TRIAL: Final = 6
ENDED_BY_THEMSELVES: Final = (EndReason.EARLY_STOPPED, EndReason.DIVERGED)

_Row = tuple[FloatArray, int, float]  # point (d,), epoch from 1, value (larger is better)


class StudyCurves:
    """Returns the training of any params: as recorded in the study, else as predicted.

    A Gaussian process, fitted to the learning curves of both studies, predicts.

    Args:
        config: The config of the search.
        trials: All trials of its study.
        others: Another study's trials, with params of this space, used for predictions only.

    Raises:
        StudyError: There is no learning curve to fit.
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
        self._sign = config.study.objective.sign
        self._space = config.space
        self._cube = UnitCube(config.space)
        self._recorded = {params_key(trial.params, config.space): trial for trial in known}
        seconds = [_seconds_an_epoch(trial) for trial in known or others]
        self._seconds = float(np.median([s for s in seconds if s is not None] or [1.0]))
        self._warp, self._model = self._fit(known, others)

    def __call__(self, params: Params) -> Curve:
        """The training of params, max_epochs long unless it was recorded to end by itself."""
        trial = self._recorded.get(params_key(params, self._space))
        predicted = self._predict(params)
        if trial is None:
            return Curve(predicted, [self._seconds] * self._max_epochs)
        values = [trial.curve[epoch] for epoch in sorted(trial.curve)]
        if trial.attributes.get("end_reason") not in ENDED_BY_THEMSELVES:
            values += predicted[len(values) :]
        seconds = _seconds_an_epoch(trial) or self._seconds
        return Curve(values, [seconds] * len(values))

    def num_recorded(self, params: Params) -> int:
        """How many epochs of these params the study has recorded."""
        trial = self._recorded.get(params_key(params, self._space))
        return 0 if trial is None else trial.num_epochs

    def _fit(
        self, trials: Sequence[TrialSummary], others: Sequence[TrialSummary]
    ) -> tuple[OutputWarp, CurveModel]:
        """The output warp and the model, fitted to at most MAX_ROWS rows.

        Half of the rows are reserved for `others`, if there are as many.
        """
        own, theirs = self._rows(trials), self._rows(others)
        own = _thinned(own, MAX_ROWS - min(len(theirs), MAX_ROWS // 2))
        rows = own + _thinned(theirs, MAX_ROWS - len(own))
        values = np.array([value for *_, value in rows])
        warp = OutputWarp(values)
        data = Rows(
            np.array([point for point, *_ in rows]),
            log_times([epoch for _, epoch, _ in rows], self._max_epochs),
            warp.forward(values),
        )
        return warp, CurveModel(data, self._cube.is_categorical)

    def _rows(self, trials: Sequence[TrialSummary]) -> list[_Row]:
        """Rows of EPOCHS_A_TRIAL epochs of each trial at most, geometrically spaced."""
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
        """The metric after each of max_epochs epochs, as the model predicts it."""
        points = np.repeat(self._cube.encode(params)[None], self._max_epochs, axis=0)
        times = log_times(range(1, self._max_epochs + 1), self._max_epochs)
        mean, _ = self._model.predict(points, times, with_sd=False)
        values: list[float] = (self._sign * self._warp.backward(mean)).tolist()
        return values


def _thinned(rows: list[_Row], most: int) -> list[_Row]:
    """At most `most` rows, drawn at random with a fixed seed, in their order."""
    if len(rows) <= most:
        return rows
    kept = np.random.default_rng(0).permutation(len(rows))[:most]
    return [rows[i] for i in sorted(kept)]


def _seconds_an_epoch(trial: TrialSummary) -> float | None:
    seconds = trial.attributes.get("seconds")
    return None if not seconds else float(seconds) / max(1, trial.num_epochs)
