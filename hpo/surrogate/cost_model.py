"""What an epoch of a configuration takes: learnt from the trials that were timed."""

from collections.abc import Mapping
from typing import Final

import numpy as np

from hpo.surrogate.arrays import BoolArray, FloatArray
from hpo.surrogate.gp import CurveModel
from hpo.surrogate.rows import Rows

MAX_TIMED: Final = 128  # trials that are learnt from, the latest


class EpochCosts:
    """A Gaussian process over params, of the logarithm of the GPU-seconds that an epoch takes.

    Its hyperparameters are fitted anew whenever twice as many trials are known, to the first of
    them, so that a search that is resumed fits the same.

    Args:
        is_categorical: (d,) coordinates that are only equal or different.
    """

    def __init__(self, is_categorical: BoolArray) -> None:
        self._is_categorical = is_categorical
        self._hyperparameters: FloatArray | None = None
        self._num_fitted = 0
        self._mean, self._sd = 0.0, 1.0
        self._model: CurveModel | None = None

    def learn(self, points: Mapping[int, FloatArray], seconds: Mapping[int, float]) -> None:
        """From all trials that were timed.

        Args:
            points: Where trials lie (d,), by number.
            seconds: Of a GPU, for an epoch, by number; trials without a point are left out.
        """
        timed = [n for n in sorted(seconds) if n in points and seconds[n] > 0]
        if not timed:
            return
        num_to_fit = min(MAX_TIMED, 2 ** (len(timed).bit_length() - 1))
        if num_to_fit > self._num_fitted:
            self._condition(timed[:num_to_fit], points, seconds, num_iterations=25)
            self._num_fitted = num_to_fit
        self._condition(timed[-MAX_TIMED:], points, seconds, num_iterations=0)

    def log_seconds(self, points: FloatArray) -> FloatArray:
        """Expected logarithms (n,) at points (n, d); zeros while nothing is known."""
        if self._model is None:
            return np.zeros(len(points))
        mean, _ = self._model.predict(points, np.ones(len(points)), with_sd=False)
        return self._mean + self._sd * mean

    def _condition(
        self,
        numbers: list[int],
        points: Mapping[int, FloatArray],
        seconds: Mapping[int, float],
        num_iterations: int,
    ) -> None:
        logs = np.log([seconds[n] for n in numbers])
        self._mean, self._sd = float(logs.mean()), float(logs.std()) or 1.0
        rows = Rows(
            np.array([points[n] for n in numbers]),
            np.ones(len(numbers)),
            (logs - self._mean) / self._sd,
        )
        start = None if num_iterations else self._hyperparameters
        self._model = CurveModel(rows, self._is_categorical, start, num_iterations)
        self._hyperparameters = self._model.hyperparameters
