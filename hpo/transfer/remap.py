"""A configuration as params of a search space that it was not drawn from."""

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
    """What happens to a configuration with a number outside the space.

    REFUSED: it has no params in the space. MOVED: the number moves to the nearest one inside.
    """

    REFUSED = auto()
    MOVED = auto()


def remap(values: Mapping[str, Value], space: Space, outside: Outside) -> Params | None:
    """The params of the space that a configuration has; None if it has none.

    A choice that the space lacks is refused by either rule, since none is near it. A number that
    lies beyond an end by rounding, as steps add up to, is that end: Optuna takes none beyond.

    Args:
        values: The configuration's value at each path of the space; others are passed over.
        space: The space to look from.
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
    return cube.decode(cube.encode(params))  # numbers on their steps


def _is_accepted(value: Value, parameter: Parameter, outside: Outside) -> bool:
    if isinstance(parameter, CategoricalParameter) or outside is Outside.REFUSED:
        return parameter.contains(value)
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _between_the_ends(value: Value, parameter: Parameter) -> Value:
    if isinstance(parameter, CategoricalParameter):
        return value
    assert isinstance(value, (int, float))  # or it would not have been accepted
    return min(max(value, parameter.low), parameter.high)
