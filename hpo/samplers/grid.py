"""The grid sampler: each configuration of a space once, in an order that the seed determines."""

import numpy as np

from hpo.config.combinations import grid_points
from hpo.config.search_space import Params, Space, params_key


class Grid:
    """Gives each configuration of a space once, in an order that the seed determines.

    Raises:
        ConfigError: A parameter is continuous, or the space has more than MAX_POINTS points.
    """

    def __init__(self, space: Space, seed: int) -> None:
        self._space = space
        points = grid_points(space)
        order = np.random.default_rng(seed).permutation(len(points))
        self._left = {params_key(points[i], space): points[i] for i in order}

    @property
    def is_exhausted(self) -> bool:
        """Whether all configurations have been tried."""
        return not self._left

    def take(self, params: Params) -> None:
        """Notes that these params have been tried, so that they are not given again."""
        self._left.pop(params_key(params, self._space), None)

    def next_params(self) -> Params:
        """The first configuration not tried yet; must not be called once `is_exhausted`."""
        return next(iter(self._left.values()))
