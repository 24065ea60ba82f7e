"""The cost model: seconds of an epoch by configuration, learnt from timed trials."""

from collections.abc import Mapping
from typing import Final

import numpy as np

from hpo.surrogate.arrays import BoolArray, FloatArray, on_one_thread
from hpo.surrogate.gp import CurveModel
from hpo.surrogate.rows import Rows

MAX_TIMED: Final = 128  # the latest timed trials, which the model is conditioned on
MAX_FITTED: Final = 64  # the latest of these, which hyperparameters are fitted to


class EpochCosts:
    """A Gaussian process over params for the logarithm of an epoch's GPU-seconds.

    Its predictions follow from the latest call of `learn` alone. So a resumed search predicts the
    same costs, although a trial's seconds an epoch change while it trains.

    Args:
        is_categorical: (d,) coordinates that are only equal or different.
    """

    def __init__(self, is_categorical: BoolArray) -> None:
        self._is_categorical = is_categorical
        self._mean, self._sd = 0.0, 1.0
        self._model: CurveModel | None = None

    @on_one_thread
    def learn(self, points: Mapping[int, FloatArray], seconds: Mapping[int, float]) -> None:
        """Fits the process to the timed trials; forgets earlier ones.

        Args:
            points: Each trial's point (d,) in the unit cube, by number.
            seconds: GPU-seconds of an epoch, by number; trials without a point are left out.
        """
        timed = [n for n in sorted(seconds) if n in points and seconds[n] > 0][-MAX_TIMED:]
        if not timed:
            self._model = None
            return
        logs = np.log([seconds[n] for n in timed])
        self._mean, self._sd = float(logs.mean()), float(logs.std()) or 1.0
        places, values = np.array([points[n] for n in timed]), (logs - self._mean) / self._sd
        rows = Rows(places, np.ones(len(timed)), values)
        few = Rows(places[-MAX_FITTED:], np.ones(len(timed))[-MAX_FITTED:], values[-MAX_FITTED:])
        fitted = CurveModel(few, self._is_categorical)
        self._model = CurveModel(rows, self._is_categorical, fitted.hyperparameters, 0)

    def log_seconds(self, points: FloatArray) -> FloatArray:
        """(n,) expected log GPU-seconds of an epoch at points (n, d); zeros before any data."""
        if self._model is None:
            return np.zeros(len(points))
        mean, _ = self._model.predict(points, np.ones(len(points)), with_sd=False)
        return self._mean + self._sd * mean
