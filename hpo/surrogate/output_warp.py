"""The output warp: maps objective values to the Gaussian process's scale, and back."""

from typing import Final

import numpy as np

from hpo.surrogate.arrays import FloatArray

TIE: Final = 1e-4  # share of the values' range: values this close to the best one tie with it
SMALLEST: Final = 1e-12


class OutputWarp:
    """Maps objective values, larger is better, to standardised ones that spread the best apart.

    The warp is -log(1 + 2 (best - value) / spread), standardised to mean 0 and standard deviation
    1 over `values`. The spread is the best value minus the median. If at least half of the values
    tie with the best one, the median is taken over the others, or the spread would be 0.

    Args:
        values: (n,) the values that the surrogate is fitted to; n >= 1, none of them NaN.
    """

    def __init__(self, values: FloatArray) -> None:
        self._best = float(values.max())
        self._spread = _spread(values)
        warped = self._warp(values)
        self._mean, self._sd = float(warped.mean()), float(warped.std())
        if self._sd < SMALLEST:  # all values are equal
            self._sd = 1.0

    def _warp(self, values: FloatArray) -> FloatArray:
        warped: FloatArray = -np.log1p(2 * (self._best - values) / self._spread)
        return warped

    def forward(self, values: FloatArray) -> FloatArray:
        """Warped and standardised values, of the shape of `values`."""
        return (self._warp(values) - self._mean) / self._sd

    def backward(self, scaled: FloatArray) -> FloatArray:
        """Values in the objective's unit, of the shape of `scaled`.

        Up to the best value this is the inverse of `forward`. Above the best value it is linear,
        with the slope of the inverse there: the inverse itself is bounded by best + spread / 2.
        """
        warped = scaled * self._sd + self._mean
        below = np.expm1(-np.minimum(warped, 0.0)) / 2
        values: FloatArray = self._best + self._spread * (np.maximum(warped, 0.0) / 2 - below)
        return values


def _spread(values: FloatArray) -> float:
    """The best value minus the median, ties with the best left out if needed; above 0."""
    best = float(values.max())
    tie = TIE * (best - float(values.min()))
    spread = best - float(np.median(values))
    if spread > tie:
        return spread
    others = values[values < best - tie]
    if len(others):
        return best - float(np.median(others))
    return abs(best) or 1.0  # all values are equal: only their size tells a scale
