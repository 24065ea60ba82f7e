"""Lists every configuration of a search space that has no continuous parameter."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Final

from hpo.config.combinations import listed_values
from hpo.config.search_space import (
    Parameter,
    Params,
    Space,
    Value,
    is_active,
    sampling_order,
)
from sgformer.errors import ConfigError

MAX_POINTS: Final = 100_000


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
