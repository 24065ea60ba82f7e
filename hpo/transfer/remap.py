"""Converts a configuration to params of a search space that did not generate it."""

from collections.abc import Mapping
from enum import Enum, auto

from hpo.config.search_space import (
    CategoricalParameter,
    Parameter,
    Params,
    Space,
    Value,
    is_active,
    sampling_order,
)
from hpo.surrogate.encoding import UnitCube


class Outside(Enum):
    """The rule for a configuration with a number outside the space.

    REFUSED: the configuration is refused. MOVED: the number moves to the nearest one inside.
    """

    REFUSED = auto()
    MOVED = auto()


def remap(values: Mapping[str, Value], space: Space, outside: Outside) -> Params | None:
    """The configuration as params of the space; None if the configuration is refused.

    Both rules refuse a choice that the space lacks, since choices have no nearest one. A number
    that exceeds an end of its range by a rounding error is set to that end, because Optuna
    accepts no number beyond.

    Args:
        values: The configuration's value at each path of the space; other paths are ignored.
        space: The space of the params.
        outside: The rule for numbers outside the space.
    """
    params: Params = {}
    for path, parameter in sampling_order(space):
        if is_active(parameter, params):
            if not _is_accepted(values[path], parameter, outside):
                return None
            params[path] = _between_the_ends(values[path], parameter)
    if outside is Outside.REFUSED:
        return params
    cube = UnitCube(space)
    return cube.decode(cube.encode(params))  # puts numbers on their grid


def _is_accepted(value: Value, parameter: Parameter, outside: Outside) -> bool:
    if isinstance(parameter, CategoricalParameter) or outside is Outside.REFUSED:
        return parameter.contains(value)
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _between_the_ends(value: Value, parameter: Parameter) -> Value:
    if isinstance(parameter, CategoricalParameter):
        return value
    assert isinstance(value, (int, float))  # _is_accepted refuses other types
    return min(max(value, parameter.low), parameter.high)
