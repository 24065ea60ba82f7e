"""Combinations of values that the trials of a search can have, for some settings or for all."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from hpo.config.search_space import (
    CategoricalParameter,
    FloatParameter,
    Parameter,
    Params,
    Space,
    Value,
    is_active,
    sampling_order,
    value_at,
)
from sgformer.config import TrainConfig
from sgformer.errors import ConfigError

MAX_POINTS: Final = 100_000


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


def grid_points(space: Space, max_points: int = MAX_POINTS) -> tuple[Params, ...]:
    """Every configuration of the space; inactive parameters are left out of each.

    Raises:
        ConfigError: A parameter is continuous, or the space has more than `max_points`
            configurations.
    """
    values = {path: _values(path, parameter) for path, parameter in sampling_order(space)}
    points = tuple(itertools.islice(_points(space, values, {}), max_points + 1))
    if len(points) > max_points:
        raise ConfigError(
            f"study.sampler grid: the space has more than {max_points} configurations; choose "
            "larger steps or fewer choices, or another sampler, such as qmc"
        )
    return points


def _points(
    space: Space, values: Mapping[str, tuple[Value, ...]], params: Params
) -> Iterator[Params]:
    """Every configuration whose first parameters have the values `params`; None: inactive."""
    left = itertools.islice(values.items(), len(params), None)
    path, choices = next(left, (None, ()))
    if path is None:
        yield {p: v for p, v in params.items() if is_active(space[p], params)}
        return
    for value in choices if is_active(space[path], params) else (None,):
        yield from _points(space, values, {**params, path: value})


def _values(path: str, parameter: Parameter) -> tuple[Value, ...]:
    values = listed_values(parameter)
    if values is None:
        raise ConfigError(
            f"study.sampler grid: space.{path} is continuous ({parameter.describe()}); give it a "
            "step, or make it categorical with choices"
        )
    return values
