"""Candidate configurations: spread over the space, drawn near others, or all listed."""

import functools
import math
from collections.abc import Callable, Collection
from typing import Final

import numpy as np
from scipy.stats import qmc

from hpo.config.combinations import MAX_POINTS, grid_points
from hpo.config.search_space import Params, Space
from hpo.surrogate.arrays import BoolArray, FloatArray
from hpo.surrogate.encoding import UnitCube

NUM_SOBOL: Final = 256
MAX_LISTED: Final = 512  # a space of at most so many points is scored whole


class Candidates:
    """The points of a space, and which of them may be started.

    Args:
        space: The searched parameters.
        seed: The seed of the Sobol sequence.
        is_allowed: Says whether a configuration may be started; None: each one may.

    Attributes:
        cube: Translates params to points (d,) of the unit cube, and back.
        listed: (n, d) all points of the space; None: it has more than MAX_LISTED.
    """

    def __init__(
        self, space: Space, seed: int, is_allowed: Callable[[Params], bool] | None = None
    ) -> None:
        self.cube = UnitCube(space)
        self._seed, self._is_allowed = seed, is_allowed
        self._space = space
        self.listed: FloatArray | None = None
        if self.cube.num_points <= MAX_LISTED:
            self.listed = self._all_points

    @functools.cached_property
    def _all_points(self) -> FloatArray:
        """(n, d) all points of the space; n is 0 if it has more than MAX_POINTS."""
        if self.cube.num_points > MAX_POINTS:
            return np.zeros((0, len(self.cube.names)))
        return np.array([self.cube.encode(params) for params in grid_points(self._space)])

    def sobol(self, num: int, skip: int = 0, seed: int | None = None) -> FloatArray:
        """(num, d) points of a Sobol sequence, which covers the space evenly, after `skip`."""
        sequence = qmc.Sobol(len(self.cube.names), seed=self._seed if seed is None else seed)
        if skip:
            sequence.fast_forward(skip)
        return self.cube.snap(sequence.random(num))

    def around(self, centres: FloatArray, sds: FloatArray, rng: np.random.Generator) -> FloatArray:
        """(n, d) a random point near each of `centres` (n, d).

        Each coordinate moves with probability 1/2, and at least one does: a number by a normal
        step of standard deviation `sds` (n,), a choice to one drawn from all.
        """
        moved = rng.random(centres.shape) < 0.5
        moved[np.arange(len(centres)), rng.integers(centres.shape[1], size=len(centres))] = True
        noise = rng.standard_normal(centres.shape) * sds[:, None]
        near = np.clip(centres + noise, 0.0, 1.0)
        points = np.where(self.cube.is_categorical, rng.random(centres.shape), near)
        return self.cube.snap(np.where(moved, points, centres))

    def startup_params(self, tried: Collection[FloatArray]) -> Params:
        """The next configuration of a Sobol sequence, after the points `tried` (each (d,)).

        If the space is finite, the first point not tried yet. Points of other spaces can repeat
        as well, where `when` rules out what is continuous.
        """
        points = self.sobol(NUM_SOBOL)
        if math.isfinite(self.cube.num_points):
            untried = points[self.may_begin(points, tried)]
            if not len(untried):
                untried = self.untried(tried)
        else:
            after = points[self.allowed(points)][len(tried) :]
            untried = after[self.may_begin(after, tried)]
        if len(untried):
            return self.cube.decode(untried[0])
        return self.cube.decode(self.sobol(1, skip=len(tried))[0])

    def is_exhausted(self, tried: Collection[FloatArray]) -> bool:
        """Whether every configuration that may be started has been tried.

        A space of more than MAX_POINTS configurations is never exhausted.
        """
        if self.cube.num_points > MAX_POINTS:
            return False
        if self._is_allowed is None and len(tried) < self.cube.min_num_points:
            return False
        if self.listed is None and self.may_begin(self.sobol(NUM_SOBOL), tried).any():
            return False
        return not len(self.untried(tried))

    def untried(self, tried: Collection[FloatArray]) -> FloatArray:
        """(n, d) points that may be started; n is 0 if the space has more than MAX_POINTS."""
        points = self._all_points
        return points[self.may_begin(points, tried)]

    def allowed(self, points: FloatArray) -> BoolArray:
        """(n,) whether each of the points (n, d) is allowed, tried or not."""
        allow = self._is_allowed
        if allow is None:
            return np.ones(len(points), dtype=bool)
        return np.array([allow(self.cube.decode(point)) for point in points], dtype=bool)

    def may_begin(self, points: FloatArray, tried: Collection[FloatArray]) -> BoolArray:
        """(n,) whether each of the points (n, d) is allowed and not tried."""
        keys = set(_keys(tried))
        may_begin = np.array([key not in keys for key in _keys(points)], dtype=bool)
        may_begin[may_begin] = self.allowed(points[may_begin])
        return may_begin


def _keys(points: Collection[FloatArray] | FloatArray) -> list[bytes]:
    """Bytes for each point (d,), equal for points that differ by rounding only."""
    return [row.tobytes() for row in np.asarray(points).round(9) + 0.0]  # + 0.0: no -0.0
