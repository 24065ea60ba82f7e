"""The Gaussian process over params and epochs: the posterior of every trial's whole curve.

Source: Swersky, Snoek and Adams, "Freeze-Thaw Bayesian Optimization", 2014, for the idea; our
kernel is over params and the logarithm of the epoch instead.
"""

import copy
from typing import Final

import numpy as np
from scipy.linalg import solve_triangular

from hpo.surrogate.arrays import BoolArray, FloatArray
from hpo.surrogate.kernel import curve_kernel, noise, params_kernel, priors, variance
from hpo.surrogate.likelihood import NegativeLogPosterior
from hpo.surrogate.rows import Rows

NUM_ITERATIONS: Final = 25


class CurveModel:
    """The posterior of curves, given rows of observed values; see kernel.py for the prior.

    Args:
        rows: The n observed rows, with standardised values.
        is_categorical: (d,) whether each coordinate is a choice.
        hyperparameters: (d + 5,) logarithms that the fit begins from; None, or an array of
            another length: the priors' medians.
        num_iterations: The most iterations of the fit; 0: `hyperparameters` stay as they are.

    Attributes:
        hyperparameters: (d + 5,) fitted logarithms, in the order of `kernel.priors`.
    """

    def __init__(
        self,
        rows: Rows,
        is_categorical: BoolArray,
        hyperparameters: FloatArray | None = None,
        num_iterations: int = NUM_ITERATIONS,
    ) -> None:
        self._points, self._times, self._is_categorical = rows.points, rows.times, is_categorical
        medians, _ = priors(rows.points.shape[1])
        if hyperparameters is None or len(hyperparameters) != len(medians):
            hyperparameters = medians
        self.hyperparameters = hyperparameters
        if num_iterations and len(rows) > 1:
            loss = NegativeLogPosterior(rows, is_categorical)
            self.hyperparameters = loss.minimum(hyperparameters, num_iterations)
        self._factor = self._factorise()
        self._condition(solve_triangular(self._factor, rows.values, lower=True))

    def _factorise(self) -> FloatArray:
        """The lower Cholesky factor (n, n) of the rows' kernel, noise included."""
        kernel = self._kernel(self._params_kernel(self._points), self._times)
        kernel[np.diag_indices_from(kernel)] += noise(self.hyperparameters)
        factor: FloatArray = np.linalg.cholesky(kernel)
        return factor

    def _condition(self, whitened: FloatArray) -> None:
        self._whitened = whitened
        self._alpha = solve_triangular(self._factor, whitened, lower=True, trans=1)

    def imagining(self, points: FloatArray, times: FloatArray, draws: FloatArray) -> "CurveModel":
        """The posterior given m future values as well, drawn k times from this posterior.

        Its predicted means are (n, k), a column for each draw; its standard deviations (n,) are
        the same for all draws.

        Args:
            points: (m, d) the points of the future values.
            times: (m,) the times of the future values, 0 to 1.
            draws: (m, k) draws of the standard normal distribution; zeros give the expected
                values.
        """
        model = copy.copy(self)
        model._points = np.concatenate([self._points, points])
        model._times = np.concatenate([self._times, times])
        if len(points):
            model._factor = model._factorise()
        # The factor times independent normal values has the rows' covariance.
        known = np.repeat(self._whitened[:, None], draws.shape[1], axis=1)
        model._condition(np.concatenate([known, draws]))
        return model

    def predict(
        self, points: FloatArray, times: FloatArray, *, with_sd: bool = True
    ) -> tuple[FloatArray, FloatArray]:
        """Means and standard deviations (n,), noise left out, at points (n, d) and times (n,).

        After `imagining` k draws the means are (n, k). Without `with_sd` the standard deviations
        are zeros.
        """
        return self.at(points).predict(times, with_sd=with_sd)

    def at(self, points: FloatArray) -> "CurvesAt":
        """Predictions at fixed points (n, d), for several times of each point."""
        return CurvesAt(self, points)

    def _params_kernel(self, points: FloatArray) -> FloatArray:
        return params_kernel(points, self._points, self._is_categorical, self.hyperparameters)

    def _kernel(self, over_params: FloatArray, times: FloatArray) -> FloatArray:
        return curve_kernel(over_params, times, self._times, self.hyperparameters)


class CurvesAt:
    """Predictions at fixed points (n, d); computes their kernel over params only once."""

    def __init__(self, model: CurveModel, points: FloatArray) -> None:
        self._model, self._params_kernel = model, model._params_kernel(points)

    def predict(
        self, times: FloatArray, *, with_sd: bool = True, with_own: bool = True
    ) -> tuple[FloatArray, FloatArray]:
        """Means and standard deviations at times (n,); see `CurveModel.predict`.

        Without `with_own`, which is for points that no row is of, the standard deviations lack
        the variance that no other params share.
        """
        model = self._model
        kernel = model._kernel(self._params_kernel, times)
        mean = kernel @ model._alpha
        if not with_sd:
            return mean, np.zeros_like(mean)
        half = solve_triangular(
            model._factor, kernel.T, lower=True, check_finite=False, overwrite_b=True
        )
        prior = variance(times, model.hyperparameters, with_own=with_own)
        left = prior - np.einsum("ij,ij->j", half, half)
        return mean, np.sqrt(np.maximum(left, 1e-12))
