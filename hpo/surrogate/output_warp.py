"""The output warp: from the objective's unit to what the Gaussian process is fitted to."""

from typing import Final

import numpy as np

from hpo.surrogate.arrays import FloatArray

TIE: Final = 1e-4  # of the values' range: best values this close are one
SMALLEST: Final = 1e-12


class OutputWarp:
    """Maps objective values, larger is better, to standardised ones where the best are spread out.

    The warp is -log(1 + 2 (best - value) / spread), then standardised to mean 0 and standard
    deviation 1 over `values`. The spread is the best value less the median, or where half of the
    values tie at the best, less the median of the others: by a tie they would differ from nothing.

    Args:
        values: (n,) the values that the surrogate is fitted to, none of them NaN.
    """

    def __init__(self, values: FloatArray) -> None:
        self._best = float(values.max())
        self._spread = _spread(values)
        warped = self._warp(values)
        self._mean, self._sd = float(warped.mean()), float(warped.std())
        if self._sd < SMALLEST:  # all are alike
            self._sd = 1.0

    def _warp(self, values: FloatArray) -> FloatArray:
        warped: FloatArray = -np.log1p(2 * (self._best - values) / self._spread)
        return warped

    def forward(self, values: FloatArray) -> FloatArray:
        """Warped and standardised values, of the same shape."""
        return (self._warp(values) - self._mean) / self._sd

    def backward(self, scaled: FloatArray) -> FloatArray:
        """Values in the objective's unit, of the same shape.

        Up to the best value it is the inverse of `forward`. Beyond it goes on straight, at the
        slope that the inverse has there: the inverse itself never comes to spread / 2 above the
        best value, however far off it is asked.
        """
        warped = scaled * self._sd + self._mean
        below = np.expm1(-np.minimum(warped, 0.0)) / 2
        values: FloatArray = self._best + self._spread * (np.maximum(warped, 0.0) / 2 - below)
        return values


def _spread(values: FloatArray) -> float:
    """The best value less the median, with ties at the best left out; above 0."""
    best = float(values.max())
    tie = TIE * (best - float(values.min()))
    spread = best - float(np.median(values))
    if spread > tie:
        return spread
    others = values[values < best - tie]
    if len(others):
        return best - float(np.median(others))
    return abs(best) or 1.0  # all are alike: nothing but their size tells what a gain may be
