"""The loss that fits the Gaussian process: negative log posterior of hyperparameters."""

import numpy as np
from scipy.linalg import blas, lapack
from scipy.optimize import minimize

from hpo.surrogate.arrays import BoolArray, FloatArray
from hpo.surrogate.kernel import JITTER, SAME, matern, priors, unpack
from hpo.surrogate.rows import Rows


class NegativeLogPosterior:
    """Minus log likelihood of rows and log prior, up to a constant, with its gradient.

    Only one triangle of each symmetric matrix is computed, in LAPACK's packed form of
    p = n (n + 1) / 2 entries.

    Args:
        rows: n rows with standardised values.
        is_categorical: (d,) whether each coordinate is a choice.
    """

    def __init__(self, rows: Rows, is_categorical: BoolArray) -> None:
        one, other = np.triu_indices(len(rows))
        self._values = rows.values
        self._diagonal = np.flatnonzero(one == other)
        gaps = (rows.points[one] - rows.points[other]).T
        self._squares = np.where(is_categorical[:, None], np.abs(gaps) > SAME, gaps**2)
        self._is_same = ~self._squares.any(0)
        times = rows.times
        self._time_squares = (times[one] - times[other]) ** 2
        self._drift = 1 + (1 - times[one]) * (1 - times[other])
        # (p,) how many entries of the whole matrix each packed entry stands for.
        self._num_entries = np.where(one == other, 1.0, 2.0)
        self._prior_means, self._prior_sds = priors(rows.points.shape[1])

    def __call__(self, theta: FloatArray) -> tuple[float, FloatArray]:
        """The loss and its gradient (d + 5,) at the hyperparameters' logarithms (d + 5,)."""
        num_rows = len(self._values)
        lengths, own, time_length, constant, gauss, noise = unpack(theta)
        near, slope = matern(lengths**-2 @ self._squares)
        correlation = (near + own * self._is_same) / (1 + own)
        decay = gauss * np.exp(-self._time_squares / (2 * time_length**2))
        over_time = constant + decay
        kernel = correlation * over_time + self._drift
        kernel[self._diagonal] += noise + JITTER
        factor, info = lapack.dpotrf(
            lapack.dtpttr(num_rows, kernel, uplo="L")[0], lower=1, overwrite_a=1
        )
        if info:
            return 1e10, np.zeros_like(theta)
        alpha, _ = lapack.dpotrs(factor, self._values, lower=1)
        log_determinant = 2 * np.log(factor.diagonal()).sum()
        inverse, _ = lapack.dpotri(factor, lower=1, overwrite_c=1)
        excess = blas.dsyr(-1.0, alpha, lower=1, a=inverse, overwrite_a=1)
        weight = lapack.dtrttp(excess, uplo="L")[0] * (-self._num_entries / 2)
        by_correlation = weight * over_time / (1 + own)
        by_length = self._squares @ (by_correlation * slope)
        by_level = weight * correlation
        by_decay = by_level * decay
        others = [
            own / (1 + own) * (by_correlation @ (self._is_same - near)),
            by_decay @ self._time_squares / time_length**2,
            constant * by_level.sum(),
            by_decay.sum(),
            noise * weight[self._diagonal].sum(),
        ]
        gradient = np.concatenate([-2 * by_length / lengths**2, others])
        log_likelihood = -0.5 * (self._values @ alpha + log_determinant)
        off = (theta - self._prior_means) / self._prior_sds
        value = -log_likelihood + 0.5 * (off**2).sum()
        return float(value), -gradient + off / self._prior_sds

    def minimum(self, start: FloatArray, num_iterations: int) -> FloatArray:
        """(d + 5,) logarithms of hyperparameters that L-BFGS-B finds from `start` (d + 5,)."""
        low = self._prior_means - 4 * self._prior_sds
        high = self._prior_means + 4 * self._prior_sds
        result = minimize(
            self,
            np.clip(start, low, high),
            jac=True,
            method="L-BFGS-B",
            bounds=list(zip(low, high, strict=True)),
            options={"maxiter": num_iterations, "maxfun": num_iterations + 10},
        )
        fitted: FloatArray = result.x
        return fitted
