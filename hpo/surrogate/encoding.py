"""The unit cube: translates params to points (d,) with coordinates in 0..1, and back."""

import math
from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from hpo.config.search_space import (
    CategoricalParameter,
    FloatParameter,
    IntParameter,
    Parameter,
    Params,
    Space,
    Value,
    is_active,
    sampling_order,
)
from hpo.surrogate.arrays import FloatArray

MIDDLE: Final = 0.5


class UnitCube:
    """The space's d parameters as coordinates in 0..1, ordered so that conditions come first.

    Numbers are laid out evenly, or evenly in their logarithm if the space says `log`. A choice is
    the middle of its equal share of 0..1; two choices are only equal or different. A parameter
    that `when` rules out has the coordinate MIDDLE.

    Attributes:
        names: The parameters' names, in the order of the coordinates.
        is_categorical: (d,) whether each coordinate is a choice.
        num_points: The most points that the space can have, as if `when` ruled out no parameter;
            infinite with a continuous parameter.
        min_num_points: The fewest points that the space has: counts parameters without `when`.
    """

    def __init__(self, space: Space) -> None:
        self._space = dict(sampling_order(space))
        self.names = tuple(self._space)
        self.is_categorical = np.array(
            [isinstance(p, CategoricalParameter) for p in self._space.values()], bool
        )
        self.num_points = math.prod(map(_num_values, self._space.values()))
        always = [parameter for parameter in self._space.values() if not parameter.when]
        self.min_num_points = math.prod(map(_num_values, always))

    def encode(self, params: Mapping[str, Value]) -> FloatArray:
        """The point (d,) of params."""
        return np.array(
            [
                _to_unit(parameter, params[name]) if name in params else MIDDLE
                for name, parameter in self._space.items()
            ]
        )

    def decode(self, point: FloatArray) -> Params:
        """Params at a point (d,), without those that `when` rules out; numbers keep `step`."""
        params: Params = {}
        for unit, (name, parameter) in zip(point.tolist(), self._space.items(), strict=True):
            if is_active(parameter, params):
                params[name] = _from_unit(parameter, unit)
        return params

    def snap(self, points: FloatArray) -> FloatArray:
        """(n, d) for each of the points (n, d) the nearest point that params can have."""
        snapped = np.clip(points, 0.0, 1.0)
        for i, parameter in enumerate(self._space.values()):
            snapped[:, i] = _snap(parameter, snapped[:, i])
            for other, values in parameter.when.items():
                condition = self._space[other]
                assert isinstance(condition, CategoricalParameter)
                chosen = _index(condition, snapped[:, self.names.index(other)])
                allowed = [condition.choices.index(value) for value in values]
                snapped[~np.isin(chosen, allowed), i] = MIDDLE
        return snapped


def _num_values(parameter: Parameter) -> float:
    if isinstance(parameter, CategoricalParameter):
        return len(parameter.choices)
    if not parameter.step:
        return math.inf
    return round((parameter.high - parameter.low) / parameter.step) + 1


def _index(parameter: CategoricalParameter, units: FloatArray) -> npt.NDArray[np.int64]:
    num_choices = len(parameter.choices)
    return np.minimum((units * num_choices).astype(np.int64), num_choices - 1)


def _bounds(parameter: FloatParameter | IntParameter) -> tuple[float, float, float]:
    """Low and high, as logarithms if `log`, widened by half a step; and the step (0: none)."""
    low, high, step = float(parameter.low), float(parameter.high), float(parameter.step or 0)
    if parameter.log and step:
        return math.log(low - step / 2), math.log(high + step / 2), step
    if parameter.log:
        return math.log(low), math.log(high), 0.0
    return low - step / 2, high + step / 2, step


def _to_unit(parameter: Parameter, value: Value) -> float:
    if isinstance(parameter, CategoricalParameter):
        return (parameter.choices.index(value) + 0.5) / len(parameter.choices)
    low, high, step = _bounds(parameter)
    assert isinstance(value, (int, float))  # else the value would not be in the space
    number = float(value)
    if step:  # values that differ by rounding are one point, as in `_numbers`
        number = parameter.low + round((number - parameter.low) / step) * step
        number = min(max(number, parameter.low), parameter.high)
    return ((math.log(number) if parameter.log else number) - low) / (high - low)


def _from_unit(parameter: Parameter, unit: float) -> Value:
    if isinstance(parameter, CategoricalParameter):
        return parameter.choices[int(_index(parameter, np.array([unit]))[0])]
    number = float(_numbers(parameter, np.array([unit]))[0])
    return round(number) if isinstance(parameter, IntParameter) else number


def _numbers(parameter: FloatParameter | IntParameter, units: FloatArray) -> FloatArray:
    low, high, step = _bounds(parameter)
    numbers: FloatArray = low + units * (high - low)
    if parameter.log:
        numbers = np.exp(numbers)
    if step:
        numbers = parameter.low + np.round((numbers - parameter.low) / step) * step
    return np.clip(numbers, parameter.low, parameter.high)


def _snap(parameter: Parameter, units: FloatArray) -> FloatArray:
    if isinstance(parameter, CategoricalParameter):
        return (_index(parameter, units) + 0.5) / len(parameter.choices)
    low, high, step = _bounds(parameter)
    if not step:
        return units
    numbers = _numbers(parameter, units)
    snapped: FloatArray = ((np.log(numbers) if parameter.log else numbers) - low) / (high - low)
    return snapped
