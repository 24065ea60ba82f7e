"""All combinations of values that the trials of a search can have for some settings."""

from collections.abc import Sequence

from hpo.config.search_space import (
    CategoricalParameter,
    FloatParameter,
    Parameter,
    Params,
    Space,
    Value,
    is_active,
    value_at,
)
from sgformer.config import TrainConfig


def listed_values(parameter: Parameter) -> tuple[Value, ...] | None:
    """All values of a parameter; None if it is continuous."""
    if isinstance(parameter, CategoricalParameter):
        return parameter.choices
    if not parameter.step:
        return None
    num_steps = round((parameter.high - parameter.low) / parameter.step)
    if isinstance(parameter, FloatParameter):
        step = parameter.step
        return tuple(round(parameter.low + i * step, 10) for i in range(num_steps + 1))
    return tuple(range(parameter.low, parameter.high + 1, parameter.step))


def combinations(base: TrainConfig, space: Space, paths: Sequence[str]) -> tuple[Params, ...]:
    """Every combination of values of these settings that a trial can have.

    A setting that is not searched, or not active, has the value of the base configuration. Of a
    continuous parameter some examples stand for all values.
    """
    conditions = [other for path in paths if path in space for other in space[path].when]
    wanted = dict.fromkeys([*conditions, *paths])
    points: list[Params] = [{}]
    for path in sorted(wanted, key=lambda path: path in space and bool(space[path].when)):
        points = [
            {**point, path: value}
            for point in points
            for value in _values_beside(base, space, path, point)
        ]
    chosen = ({path: point[path] for path in paths} for point in points)
    return tuple({tuple(params.items()): params for params in chosen}.values())


def _values_beside(base: TrainConfig, space: Space, path: str, params: Params) -> Sequence[Value]:
    """The values of a setting in trials that have these params."""
    parameter = space.get(path)
    if parameter is None or not is_active(parameter, params):
        return (value_at(base, path),)
    return listed_values(parameter) or parameter.examples()
