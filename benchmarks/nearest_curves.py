"""Curves of any configuration, from those of the nearest recorded ones."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[Any]]
NUM_NEAREST: Final = 3


class NearestCurves:
    """The mean of the three nearest recorded curves, weighted by inverse distance.

    At a recorded point it is that point's own curve.

    Args:
        points: (n, d) recorded configurations, in units of distance.
    """

    def __init__(self, points: Array) -> None:
        self._points = points

    def at(self, point: Array, recorded: Array) -> Array:
        """The mean (epochs,) at a point (d,) or (1, d) of the recorded values (n, epochs)."""
        distances = np.linalg.norm(self._points - point, axis=1)
        nearest = np.argsort(distances, kind="stable")[:NUM_NEAREST]
        weights = 1 / np.maximum(distances[nearest], 1e-9)
        values: Array = weights @ recorded[nearest] / weights.sum()
        return values
