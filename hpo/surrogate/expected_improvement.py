"""The acquisition function's formula: the logarithm of the expected improvement."""

import math

import numpy as np
from scipy.special import erfcx, log_ndtr

from hpo.surrogate.arrays import FloatArray


def log_expected_improvement(
    mean: FloatArray, sd: FloatArray, incumbent: float | FloatArray
) -> FloatArray:
    """Log E[max(N(mean, sd) - incumbent, 0)], exact where the improvement is next to nothing.

    The arguments broadcast against each other; the result has their common shape.

    Source: Ament et al., "Unexpected Improvements to Expected Improvement", 2023.
    """
    z = (mean - incumbent) / sd
    log_phi = -(z**2) / 2 - math.log(2 * math.pi) / 2
    near = np.maximum(z, -1.0)
    density = np.exp(-(near**2) / 2) / math.sqrt(2 * math.pi)
    direct = np.log(density + near * np.exp(log_ndtr(near)))
    far = np.minimum(z, -1.0)
    ratio = np.log(-far * erfcx(-far / math.sqrt(2)) * math.sqrt(math.pi / 2))
    with np.errstate(divide="ignore"):
        tail = np.where(
            far > -1e6, np.log(-np.expm1(np.minimum(ratio, -1e-300))), -2 * np.log(-far)
        )
    improvement: FloatArray = np.log(sd) + np.where(z > -1, direct, log_phi + tail)
    return improvement
