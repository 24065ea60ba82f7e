"""A Gaussian process over params and epochs: what is known of every trial's whole curve.

Source: Swersky, Snoek and Adams, "Freeze-Thaw Bayesian Optimization", 2014, for the idea; one
kernel over params and the logarithm of the epoch in place of theirs.
"""

import copy
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt
from scipy.linalg import blas, lapack, solve_triangular
from scipy.optimize import minimize
from scipy.spatial.distance import cdist
from threadpoolctl import ThreadpoolController

FloatArray = npt.NDArray[np.floating[Any]]
BoolArray = npt.NDArray[np.bool_]

# Log-normal priors (median, standard deviation of the logarithm). Source: docs/performance.md for
# the first, shared measurements.
PRIOR_LENGTH: Final = (1.2, 0.4)
PRIOR_TIME_LENGTH: Final = (0.5, 0.7)
PRIOR_SCALE: Final = (0.5, 1.0)
PRIOR_NOISE: Final = (1e-3, 1.5)
NUM_ITERATIONS: Final = 25
JITTER: Final = 1e-6
SAME: Final = 1e-9  # categorical coordinates this close are equal

P = ParamSpec("P")
R = TypeVar("R")
_BLAS: Final = ThreadpoolController().select(user_api="blas")


def on_one_thread(function: Callable[P, R]) -> Callable[P, R]:
    """Has a function's matrices computed by one thread.

    They are small, and the cores are busy with trials: threads of BLAS wait for each other.
    """

    @functools.wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> R:
        with _BLAS.limit(limits=1):
            return function(*args, **kwargs)

    return limited


@dataclass(frozen=True)
class Rows:
    """Points of curves: coordinates of the params (n, d), times (n,) and values (n,).

    A time is the logarithm of the epoch, 0 at the first epoch and 1 at the last.
    """

    points: FloatArray
    times: FloatArray
    values: FloatArray

    def __len__(self) -> int:
        return len(self.times)


class Scale:
    """From an objective to what the model sees: larger is better, the best ones spread out."""

    def __init__(self, values: FloatArray) -> None:
        self._best = float(values.max())
        self._spread = max(self._best - float(np.median(values)), 1e-12)
        warped = self._warp(values)
        self._mean, self._sd = float(warped.mean()), max(float(warped.std()), 1e-9)

    def _warp(self, values: FloatArray) -> FloatArray:
        warped: FloatArray = -np.log1p(2 * (self._best - values) / self._spread)
        return warped

    def forward(self, values: FloatArray) -> FloatArray:
        return (self._warp(values) - self._mean) / self._sd

    def backward(self, scaled: FloatArray) -> FloatArray:
        warped = scaled * self._sd + self._mean
        values: FloatArray = self._best - self._spread * np.expm1(-warped) / 2
        return values


class CurveModel:
    """The posterior of curves, given rows of them.

    The kernel is Matern-5/2 over the params, with a length scale each, times a constant plus a
    Gaussian over time; plus a constant and a linear drift that all curves share; plus noise.

    Args:
        rows: What is known, its values standardised.
        is_categorical: (d,) coordinates that are only equal or different.
        hyperparameters: To begin the fit from, logarithms; None: the priors' medians.
        num_iterations: Of the fit; 0 takes `hyperparameters` as they are.

    Attributes:
        hyperparameters: Fitted: length scales, that of time, the constant, the Gaussian, noise.
    """

    def __init__(
        self,
        rows: Rows,
        is_categorical: BoolArray,
        hyperparameters: FloatArray | None = None,
        num_iterations: int = NUM_ITERATIONS,
    ) -> None:
        self._points, self._times, self._is_categorical = rows.points, rows.times, is_categorical
        num_coordinates = rows.points.shape[1]
        priors = [PRIOR_LENGTH] * num_coordinates
        priors += [PRIOR_TIME_LENGTH, PRIOR_SCALE, PRIOR_SCALE, PRIOR_NOISE]
        self._prior_means = np.log([median for median, _ in priors])
        self._prior_sds = np.array([sd for _, sd in priors])
        if hyperparameters is None or len(hyperparameters) != len(priors):
            hyperparameters = self._prior_means
        self.hyperparameters = hyperparameters
        if num_iterations and len(rows) > 1:
            self.hyperparameters = self._fit(rows, hyperparameters, num_iterations)
        self._factor = self._factorise()
        self._condition(solve_triangular(self._factor, rows.values, lower=True))

    def _fit(self, rows: Rows, start: FloatArray, num_iterations: int) -> FloatArray:
        # Of symmetric matrices only a triangle, packed as LAPACK has it.
        one, other = np.triu_indices(len(rows))
        diagonal = np.flatnonzero(one == other)
        gaps = (rows.points[one] - rows.points[other]).T
        squares = np.where(self._is_categorical[:, None], np.abs(gaps) > SAME, gaps**2)
        times = rows.times
        time_squares = (times[one] - times[other]) ** 2
        drift = 1 + (1 - times[one]) * (1 - times[other])
        num_entries = np.where(one == other, 1.0, 2.0)  # each stands for, in the whole matrix
        low = self._prior_means - 4 * self._prior_sds
        high = self._prior_means + 4 * self._prior_sds

        def loss(theta: FloatArray) -> tuple[float, FloatArray]:
            lengths, time_length, constant, gauss, noise = _unpack(theta)
            matern, slope = _matern(lengths**-2 @ squares)
            decay = gauss * np.exp(-time_squares / (2 * time_length**2))
            over_time = constant + decay
            kernel = matern * over_time + drift
            kernel[diagonal] += noise + JITTER
            factor, info = lapack.dpotrf(
                lapack.dtpttr(len(rows), kernel, uplo="L")[0], lower=1, overwrite_a=1
            )
            if info:
                return 1e10, np.zeros_like(theta)
            alpha, _ = lapack.dpotrs(factor, rows.values, lower=1)
            log_determinant = 2 * np.log(factor.diagonal()).sum()
            inverse, _ = lapack.dpotri(factor, lower=1, overwrite_c=1)
            excess = blas.dsyr(-1.0, alpha, lower=1, a=inverse, overwrite_a=1)
            weight = lapack.dtrttp(excess, uplo="L")[0] * (-num_entries / 2)
            by_length = squares @ (weight * over_time * slope)
            by_matern = weight * matern
            by_decay = by_matern * decay
            gradient = np.concatenate(
                [
                    -2 * by_length / lengths**2,
                    [
                        by_decay @ time_squares / time_length**2,
                        constant * by_matern.sum(),
                        by_decay.sum(),
                        noise * weight[diagonal].sum(),
                    ],
                ]
            )
            log_likelihood = -0.5 * (rows.values @ alpha + log_determinant)
            off = (theta - self._prior_means) / self._prior_sds
            value = -log_likelihood + 0.5 * (off**2).sum()
            return float(value), -gradient + off / self._prior_sds

        result = minimize(
            loss,
            np.clip(start, low, high),
            jac=True,
            method="L-BFGS-B",
            bounds=list(zip(low, high, strict=True)),
            options={"maxiter": num_iterations, "maxfun": num_iterations + 10},
        )
        fitted: FloatArray = result.x
        return fitted

    def _factorise(self) -> FloatArray:
        """The kernel's Cholesky factor, of all that is known."""
        kernel = self._kernel(self._params_kernel(self._points), self._times)
        kernel[np.diag_indices_from(kernel)] += math.exp(self.hyperparameters[-1]) + JITTER
        factor: FloatArray = np.linalg.cholesky(kernel)
        return factor

    def _condition(self, whitened: FloatArray) -> None:
        self._whitened = whitened
        self._alpha = solve_triangular(self._factor, whitened, lower=True, trans=1)

    def imagining(self, points: FloatArray, times: FloatArray, draws: FloatArray) -> "CurveModel":
        """The posterior as if what is to come at m points and times were known, drawn k times.

        Its means are (n, k), a column for each of the draws; its standard deviations are the same
        for all.

        Args:
            points: (m, d).
            times: (m,).
            draws: (m, k) of the standard normal distribution; zeros are what is expected.
        """
        model = copy.copy(self)
        model._points = np.concatenate([self._points, points])
        model._times = np.concatenate([self._times, times])
        if len(points):
            model._factor = model._factorise()
        # Values with this covariance are its factor times independent ones.
        known = np.repeat(self._whitened[:, None], draws.shape[1], axis=1)
        model._condition(np.concatenate([known, draws]))
        return model

    def predict(
        self, points: FloatArray, times: FloatArray, *, with_sd: bool = True
    ) -> tuple[FloatArray, FloatArray]:
        """Means and standard deviations (n,), noise not included, at points (n, d), times (n,).

        Means are (n, k) where k draws are imagined.
        """
        return self.at(points).predict(times, with_sd=with_sd)

    def at(self, points: FloatArray) -> "CurvesAt":
        """For predictions at several times of the same points."""
        return CurvesAt(self, points)

    def _params_kernel(self, points: FloatArray) -> FloatArray:
        """Of the points (n, d) with those that are known."""
        lengths = np.exp(self.hyperparameters[: points.shape[1]])
        left, right, is_number = points / lengths, self._points / lengths, ~self._is_categorical
        distance = cdist(left[:, is_number], right[:, is_number], "sqeuclidean")
        for i in np.flatnonzero(self._is_categorical):
            differs = np.abs(np.subtract.outer(points[:, i], self._points[:, i])) > SAME
            distance += differs / lengths[i] ** 2
        return _matern(distance)[0]

    def _kernel(self, params_kernel: FloatArray, times: FloatArray) -> FloatArray:
        _, time_length, constant, gauss, _ = _unpack(self.hyperparameters)
        gap = times[:, None] - self._times[None, :]
        over_time = constant + gauss * np.exp(-(gap**2) / (2 * time_length**2))
        return params_kernel * over_time + 1 + np.outer(1 - times, 1 - self._times)

    def _variance(self, times: FloatArray) -> FloatArray:
        _, _, constant, gauss, _ = _unpack(self.hyperparameters)
        return constant + gauss + 1 + (1 - times) ** 2


class CurvesAt:
    """Predictions at fixed points; made by CurveModel.at."""

    def __init__(self, model: CurveModel, points: FloatArray) -> None:
        self._model, self._params_kernel = model, model._params_kernel(points)

    def predict(self, times: FloatArray, *, with_sd: bool = True) -> tuple[FloatArray, FloatArray]:
        """As CurveModel.predict."""
        model = self._model
        kernel = model._kernel(self._params_kernel, times)
        mean = kernel @ model._alpha
        if not with_sd:
            return mean, np.zeros_like(mean)
        half = solve_triangular(
            model._factor, kernel.T, lower=True, check_finite=False, overwrite_b=True
        )
        variance = model._variance(times) - np.einsum("ij,ij->j", half, half)
        return mean, np.sqrt(np.maximum(variance, 1e-12))


def _unpack(theta: FloatArray) -> tuple[FloatArray, float, float, float, float]:
    values = np.exp(theta)
    time_length, constant, gauss, noise = values[-4:].tolist()
    return values[:-4], time_length, constant, gauss, noise


def _matern(squared_distance: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Matern-5/2 and its slope by the squared distance."""
    root = np.sqrt(5 * squared_distance)
    decay = np.exp(-root)
    return (1 + root + root**2 / 3) * decay, -5 / 6 * (1 + root) * decay
