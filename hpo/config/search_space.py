"""The searched parameters: their ranges, how Optuna samples them, how a config gets their values.

A parameter's name is its dotted path in TrainConfig, such as `optimizer.learning_rate`. The
search file, Optuna, Ray and the report all use this name.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from optuna.trial import FixedTrial, Trial
from pydantic import BeforeValidator, Field, model_validator

from sgformer.config import TrainConfig
from sgformer.validation import FrozenConfig, validate


def _number_from_yaml(value: Any) -> Any:
    """The value; text such as 1e-3, which YAML does not read as a number, becomes a float."""
    if isinstance(value, (dict, list)):
        raise ValueError(  # noqa: TRY004  pydantic turns only ValueError into its own error
            f"takes one value, such as 0.1 or mild, and a path has dots, such as "
            f"optimizer.learning_rate; got {value!r}"
        )
    is_number = isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value)
    return float(value) if is_number else value


# The settings that determine a model's graph, and with it the costs of its architecture.
ARCHITECTURE: Final = ("model.name", "data.image_size")

Value = Annotated[bool | int | float | str | None, BeforeValidator(_number_from_yaml)]
Params = dict[str, Value]


class _Parameter(FrozenConfig):
    """Base class of all kinds of parameters, each of which may have a condition."""

    when: dict[str, Annotated[tuple[Value, ...], Field(min_length=1)]] = Field(
        default={}, max_length=1
    )


class FloatParameter(_Parameter):
    """A real number in low..high, ends included.

    Attributes:
        when: The path of another, categorical parameter, and those of its choices for which this
            parameter is active; empty: it is always active.
        type: The kind of parameter.
        low: The lowest value.
        high: The highest value.
        log: Whether the value's logarithm is sampled; low must then be above 0.
        step: Puts values on a grid of low, low + step, ..., high; None: there is no grid.
    """

    type: Literal["float"]
    low: float
    high: float
    log: bool = False
    step: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _check_range(self.low, self.high, log=self.log, step=self.step)
        return self

    def suggest(self, trial: Trial | FixedTrial, path: str) -> Value:
        """The value that the trial's sampler draws for this parameter."""
        return trial.suggest_float(path, self.low, self.high, log=self.log, step=self.step)

    def contains(self, value: Value) -> bool:
        """Whether the value lies in the range and on the grid, up to rounding errors."""
        return _in_range(value, self.low, self.high, self.step)

    def examples(self) -> tuple[Value, ...]:
        """Low, a value in between that integer settings refuse, and high."""
        step = self.step or math.sqrt(0.1) * (self.high - self.low)
        return (self.low, self.low + step, self.high)

    def describe(self) -> str:
        """The range in words, such as '0..0.5 step 0.05'."""
        return f"{self.low:g}..{self.high:g}" + (f" step {self.step:g}" if self.step else "")


class IntParameter(_Parameter):
    """A whole number in low..high, ends included.

    Attributes:
        when: The path of another, categorical parameter, and those of its choices for which this
            parameter is active; empty: it is always active.
        type: The kind of parameter.
        low: The lowest value.
        high: The highest value.
        log: Whether the value's logarithm is sampled; low must then be above 0.
        step: Puts values on a grid of low, low + step, ..., high.
    """

    type: Literal["int"]
    low: int
    high: int
    log: bool = False
    step: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _check_range(self.low, self.high, log=self.log, step=None if self.step == 1 else self.step)
        return self

    def suggest(self, trial: Trial | FixedTrial, path: str) -> Value:
        """The value that the trial's sampler draws for this parameter."""
        return trial.suggest_int(path, self.low, self.high, log=self.log, step=self.step)

    def contains(self, value: Value) -> bool:
        """Whether the value is a whole number, such as 3 or 3.0, in the range and on the grid."""
        is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        return is_whole and _in_range(value, self.low, self.high, self.step)

    def examples(self) -> tuple[Value, ...]:
        """Low, low plus one step, and high."""
        return (self.low, self.low + self.step, self.high)

    def describe(self) -> str:
        """The range in words, such as '2..6 step 2'."""
        return f"{self.low}..{self.high}" + (f" step {self.step}" if self.step > 1 else "")


class CategoricalParameter(_Parameter):
    """A parameter that takes one of the listed choices.

    Attributes:
        when: The path of another, categorical parameter, and those of its choices for which this
            parameter is active; empty: it is always active.
        type: The kind of parameter.
        choices: The values, which differ from one another.
    """

    type: Literal["categorical"]
    choices: tuple[Value, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(set(self.choices)) < len(self.choices):
            raise ValueError(f"choices must differ from one another, got {list(self.choices)}")
        return self

    def suggest(self, trial: Trial | FixedTrial, path: str) -> Value:
        """The choice that the trial's sampler draws for this parameter."""
        return trial.suggest_categorical(path, self.choices)

    def contains(self, value: Value) -> bool:
        """Whether the value is one of the choices."""
        return value in self.choices

    def examples(self) -> tuple[Value, ...]:
        """All choices."""
        return self.choices

    def describe(self) -> str:
        """The choices in words, such as 'guide, mild'."""
        return ", ".join(map(str, self.choices))


Parameter = Annotated[
    FloatParameter | IntParameter | CategoricalParameter, Field(discriminator="type")
]
Space = Mapping[str, Parameter]


def _check_range(low: float, high: float, *, log: bool, step: float | None) -> None:
    if low >= high:
        raise ValueError(f"low must be below high, got low={low:g} and high={high:g}")
    if log and low <= 0:
        raise ValueError(f"low must be above 0 on a logarithmic scale, got low={low:g}")
    if log and step is not None:
        raise ValueError(f"log and step exclude one another, got log=true and step={step:g}")
    if step is not None and not _on_grid(high, low, step):
        raise ValueError(
            f"high must be low plus a multiple of step, got low={low:g}, high={high:g} "
            f"and step={step:g}"
        )


def _in_range(value: Value, low: float, high: float, step: float | None) -> bool:
    if isinstance(value, (bool, str)) or value is None:
        return False
    is_between = low <= value <= high or math.isclose(value, low) or math.isclose(value, high)
    return is_between and (step is None or _on_grid(value, low, step))


def _on_grid(value: float, low: float, step: float) -> bool:
    steps = (value - low) / step
    return math.isclose(steps, round(steps), abs_tol=1e-6)


def is_active(parameter: Parameter, params: Mapping[str, Value]) -> bool:
    """Whether the parameter's `when` holds for these params."""
    return all(params.get(path) in values for path, values in parameter.when.items())


def sampling_order(space: Space) -> list[tuple[str, Parameter]]:
    """Pairs of path and parameter; unconditional parameters come before conditional ones."""
    return sorted(space.items(), key=lambda item: bool(item[1].when))


def suggest_params(trial: Trial | FixedTrial, space: Space) -> Params:
    """The values that the trial's sampler draws for all active parameters of the space."""
    params: Params = {}
    for path, parameter in sampling_order(space):
        if is_active(parameter, params):
            params[path] = parameter.suggest(trial, path)
    return params


def default_params(base: TrainConfig, space: Space) -> Params:
    """The base configuration's values of the space's active parameters, by path."""
    values = {path: value_within(base, path, parameter) for path, parameter in space.items()}
    return {path: value for path, value in values.items() if is_active(space[path], values)}


def value_within(base: TrainConfig, path: str, parameter: Parameter) -> Any:
    """The configuration's value of a searched parameter.

    Where the setting leaves its value open, and the parameter does not allow that, the value is
    the one of the model (`TrainConfig.resolved`), and float32 as precision.
    """
    value = value_at(base, path)
    if parameter.contains(value):
        return value
    if value is None and path.startswith("data."):
        return value_at(base.resolved(), path)
    if path == "precision" and value == "auto" and parameter.contains("float32"):
        return "float32"
    return value


def params_key(params: Mapping[str, Value], space: Space) -> tuple[object, ...]:
    """A hashable key of params; two keys are equal if and only if the trainings are the same.

    The key ignores the order of the params and rounding errors: 0.30000000000000004 equals 0.3,
    and 8 equals 8.0. Params that are not in the space are left out.
    """
    return tuple(
        (path, _value_key(parameter, params[path]))
        for path, parameter in sorted(space.items())
        if path in params
    )


def _value_key(parameter: Parameter, value: Value) -> object:
    """The number of steps above low; without a step, the number's first ten digits."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if isinstance(parameter, CategoricalParameter) or not is_number:
        return value
    assert isinstance(value, (int, float))
    return round((value - parameter.low) / parameter.step) if parameter.step else f"{value:.10g}"


def value_at(base: TrainConfig, path: str) -> Any:
    """The base configuration's value at a dotted path; a path of a file is text, as in YAML."""
    value: Any = base
    for part in path.split("."):
        value = getattr(value, part)
    return str(value) if isinstance(value, Path) else value


def apply_params(base: TrainConfig, params: Mapping[str, Value], source: str) -> TrainConfig:
    """A copy of the base configuration with each of the params set at its path.

    Raises:
        ConfigError: TrainConfig does not allow a value; the message names `source`.
    """
    values = base.model_dump()
    for path, value in params.items():
        *sections, name = path.split(".")
        section = values
        for part in sections:
            section = section[part]
        section[name] = value
    return validate(TrainConfig, values, source)
