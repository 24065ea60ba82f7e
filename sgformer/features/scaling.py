"""How features are standardised: their means and standard deviations over the train images."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from sgformer.features.columns import FeatureColumns, FloatArray

ROWS_AT_A_TIME: Final = 2**14
LEAST_STD: Final = 1e-6  # below, a number is taken to be constant, and is not scaled


@dataclass(frozen=True)
class Scaling:
    """What is subtracted from features, and what they are divided by, (size,) each."""

    mean: FloatArray
    std: FloatArray


def fitted_scaling(
    matrix: FloatArray, rows: npt.NDArray[np.int64], columns: FeatureColumns
) -> Scaling:
    """The scaling that gives features mean 0 and standard deviation 1 over some rows.

    Categories stay 0 and 1. The numbers of a text have one standard deviation in common: most
    words are rare, and a rare word would be a number of dozens of standard deviations.

    Args:
        matrix: Vectors (N, size); a row of NaN is missing.
        rows: Positions of the train images.
        columns: The columns of the vectors.
    """
    mean, variance = _moments(matrix, rows, columns.size)
    start = 0
    for column in columns.columns:
        own = slice(start, start + column.size)
        start += column.size
        if column.kind == "category":
            mean[own], variance[own] = 0, 1
        if column.kind == "text":
            variance[own] = variance[own].mean()
    std = np.sqrt(variance)
    std[std < LEAST_STD * np.maximum(1, np.abs(mean))] = 1
    return Scaling(mean.astype(np.float32), std.astype(np.float32))


def _moments(
    matrix: FloatArray, rows: npt.NDArray[np.int64], size: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and variance of each number over the rows that are there.

    Source: Chan, Golub and LeVeque, "Updating formulae" (1979), which joins parts without the
    cancellation of a sum of squares.
    """
    count, mean, squares = 0, np.zeros(size), np.zeros(size)
    for start in range(0, len(rows), ROWS_AT_A_TIME):
        part = matrix[rows[start : start + ROWS_AT_A_TIME]].astype(np.float64)
        part = part[~np.isnan(part).any(1)]
        if not len(part):
            continue
        own, total = part.mean(0), count + len(part)
        squares += ((part - own) ** 2).sum(0) + (own - mean) ** 2 * count * len(part) / total
        mean += (own - mean) * len(part) / total
        count = total
    return mean, squares / max(1, count)
