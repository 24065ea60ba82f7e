"""The grid sampler: each configuration of a space once, in an order that the seed determines."""

from collections.abc import Mapping

import numpy as np

from hpo.config.grid_points import grid_points
from hpo.config.search_space import CategoricalParameter, Parameter, Params, Space, Value


class Grid:
    """Gives each configuration of a space once, in an order that the seed determines.

    Raises:
        ConfigError: The space is no grid.
    """

    def __init__(self, space: Space, seed: int) -> None:
        self._space = space
        points = grid_points(space)
        order = np.random.default_rng(seed).permutation(len(points))
        self._left = {self._key(points[i]): points[i] for i in order}

    @property
    def is_exhausted(self) -> bool:
        """Whether all have been tried."""
        return not self._left

    def take(self, params: Params) -> None:
        """These have been tried."""
        self._left.pop(self._key(params), None)

    def next_params(self) -> Params:
        """Those not tried yet that come first; to be asked for while there are any."""
        return next(iter(self._left.values()))

    def _key(self, params: Mapping[str, Value]) -> tuple[object, ...]:
        """Equal for values that differ by rounding only."""
        return tuple(
            _index(parameter, params[path]) if path in params else None
            for path, parameter in self._space.items()
        )


def _index(parameter: Parameter, value: Value) -> object:
    if isinstance(parameter, CategoricalParameter):
        return parameter.choices.index(value)
    assert parameter.step
    assert isinstance(value, (int, float))  # or it would not be in the space
    return round((value - parameter.low) / parameter.step)
