"""The output warp: from the objective's unit to what the Gaussian process is fitted to."""

import numpy as np

from hpo.surrogate.arrays import FloatArray


class OutputWarp:
    """Maps objective values, larger is better, to standardised ones where the best are spread out.

    The warp is -log(1 + 2 (best - value) / spread), then standardised to mean 0 and standard
    deviation 1 over `values`; spread is the best value less the median.

    Args:
        values: (n,) the values that the surrogate is fitted to, none of them NaN.
    """

    def __init__(self, values: FloatArray) -> None:
        self._best = float(values.max())
        self._spread = max(self._best - float(np.median(values)), 1e-12)
        warped = self._warp(values)
        self._mean, self._sd = float(warped.mean()), max(float(warped.std()), 1e-9)

    def _warp(self, values: FloatArray) -> FloatArray:
        warped: FloatArray = -np.log1p(2 * (self._best - values) / self._spread)
        return warped

    def forward(self, values: FloatArray) -> FloatArray:
        """Warped and standardised values, of the same shape."""
        return (self._warp(values) - self._mean) / self._sd

    def backward(self, scaled: FloatArray) -> FloatArray:
        """Values in the objective's unit, of the same shape; the inverse of `forward`."""
        warped = scaled * self._sd + self._mean
        values: FloatArray = self._best - self._spread * np.expm1(-warped) / 2
        return values
