"""The kernel of the Gaussian process over curves, its hyperparameters and their priors.

The kernel is k(params) * (constant + gaussian(t - t')) + 1 + (1 - t)(1 - t'), plus noise on the
diagonal. k(params) is (Matern-5/2 + own * [equal params]) / (1 + own): what near configurations
share, with a length scale for each coordinate, and what no other configuration shares. 1 and
(1 - t)(1 - t') are an offset and a linear drift that all curves share. Times t are in 0..1, see
`rows.log_times`.
"""

import math
from typing import Final, NamedTuple

import numpy as np
from scipy.spatial.distance import cdist

from hpo.surrogate.arrays import BoolArray, FloatArray

# Log-normal priors (median, standard deviation of the logarithm). Source: docs/performance.md for
# the first one; shared measurements for the others.
PRIOR_LENGTH: Final = (1.2, 0.4)
PRIOR_OWN: Final = (0.05, 1.5)
PRIOR_TIME_LENGTH: Final = (0.5, 0.7)
PRIOR_SCALE: Final = (0.5, 1.0)
PRIOR_NOISE: Final = (1e-3, 1.5)
JITTER: Final = 1e-6
SAME: Final = 1e-9  # categorical coordinates this close are equal


class Hyperparameters(NamedTuple):
    """The kernel's hyperparameters, in the order of the array of their logarithms.

    Attributes:
        lengths: (d,) length scales of the coordinates.
        own: Variance that only equal params share, relative to what near ones share.
        time_length: Length scale of time.
        constant: Variance of a curve's level.
        gauss: Variance of the Gaussian over time.
        noise: Variance of a row's noise.
    """

    lengths: FloatArray
    own: float
    time_length: float
    constant: float
    gauss: float
    noise: float


NUM_OTHERS: Final = len(Hyperparameters._fields) - 1  # besides the length scales


def priors(num_coordinates: int) -> tuple[FloatArray, FloatArray]:
    """Means and standard deviations of the hyperparameters' logarithms, both (d + 5,)."""
    each = [PRIOR_LENGTH] * num_coordinates
    each += [PRIOR_OWN, PRIOR_TIME_LENGTH, PRIOR_SCALE, PRIOR_SCALE, PRIOR_NOISE]
    return np.log([median for median, _ in each]), np.array([sd for _, sd in each])


def unpack(theta: FloatArray) -> Hyperparameters:
    """The hyperparameters from their logarithms (d + 5,)."""
    values = np.exp(theta)
    return Hyperparameters(values[:-NUM_OTHERS], *values[-NUM_OTHERS:].tolist())


def matern(squared_distance: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Matern-5/2 and its derivative by the squared distance, both of that array's shape."""
    root = np.sqrt(5 * squared_distance)
    decay = np.exp(-root)
    return (1 + root + root**2 / 3) * decay, -5 / 6 * (1 + root) * decay


def params_kernel(
    points: FloatArray, others: FloatArray, is_categorical: BoolArray, theta: FloatArray
) -> FloatArray:
    """(n, m) kernel over params, of points (n, d) with others (m, d); 1 if equal."""
    lengths, own = unpack(theta)[:2]
    left, right, is_number = points / lengths, others / lengths, ~is_categorical
    distance = cdist(left[:, is_number], right[:, is_number], "sqeuclidean")
    for i in np.flatnonzero(is_categorical):
        differs = np.abs(np.subtract.outer(points[:, i], others[:, i])) > SAME
        distance += differs / lengths[i] ** 2
    near, _ = matern(distance)
    kernel: FloatArray = (near + own * (distance == 0)) / (1 + own)
    return kernel


def curve_kernel(
    over_params: FloatArray, times: FloatArray, others: FloatArray, theta: FloatArray
) -> FloatArray:
    """(n, m) whole kernel without noise, of rows at times (n,) with rows at others (m,).

    `over_params` (n, m) is the result of `params_kernel` for the same rows.
    """
    known = unpack(theta)
    gap = times[:, None] - others[None, :]
    over_time = known.constant + known.gauss * np.exp(-(gap**2) / (2 * known.time_length**2))
    return over_params * over_time + 1 + np.outer(1 - times, 1 - others)


def variance(times: FloatArray, theta: FloatArray, *, with_own: bool = True) -> FloatArray:
    """(n,) prior variances of rows at times (n,), without noise.

    Without `with_own` they lack what no other params share.
    """
    known = unpack(theta)
    share = 1.0 if with_own else 1 / (1 + known.own)
    return share * (known.constant + known.gauss) + 1 + (1 - times) ** 2


def noise(theta: FloatArray) -> float:
    """The variance of a row's noise, plus the jitter that keeps the matrix definite."""
    return math.exp(theta[-1]) + JITTER
