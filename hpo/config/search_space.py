"""The searched parameters: their ranges, how Optuna samples them, and their way into a config.

A parameter's name is its dotted path in TrainConfig, such as `optimizer.learning_rate`, in the
search file, in Optuna, in Ray and in the report.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, Literal, Self

from optuna.trial import FixedTrial, Trial
from pydantic import BeforeValidator, Field, model_validator

from sgformer.config import FrozenConfig, TrainConfig, fields_at, nearest_known, validate
from sgformer.errors import ConfigError


def _number_from_yaml(value: Any) -> Any:
    """YAML reads 1e-3 as text."""
    if isinstance(value, (dict, list)):
        raise ValueError(  # noqa: TRY004  pydantic takes no TypeError
            f"takes one value, such as 0.1 or mild, and a path has dots, such as "
            f"optimizer.learning_rate; got {value!r}"
        )
    is_number = isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value)
    return float(value) if is_number else value


# The settings that shape a model's graph.
ARCHITECTURE: Final = ("model.name", "data.image_size")

Value = Annotated[bool | int | float | str | None, BeforeValidator(_number_from_yaml)]
Params = dict[str, Value]


class _Parameter(FrozenConfig):
    """`when` names another, categorical parameter and for which of its values this one counts."""

    when: dict[str, Annotated[tuple[Value, ...], Field(min_length=1)]] = Field(
        default={}, max_length=1
    )


class FloatParameter(_Parameter):
    """A real number in low..high; `log` samples its logarithm, `step` puts it on a grid."""

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
        return trial.suggest_float(path, self.low, self.high, log=self.log, step=self.step)

    def contains(self, value: Value) -> bool:
        return _in_range(value, self.low, self.high, self.step)

    def examples(self) -> tuple[Value, ...]:
        """The ends, and what no setting takes that has gaps between them."""
        step = self.step or math.sqrt(0.1) * (self.high - self.low)
        return (self.low, self.low + step, self.high)

    def describe(self) -> str:
        return f"{self.low:g}..{self.high:g}" + (f" step {self.step:g}" if self.step else "")


class IntParameter(_Parameter):
    """A whole number in low..high, both included."""

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
        return trial.suggest_int(path, self.low, self.high, log=self.log, step=self.step)

    def contains(self, value: Value) -> bool:
        is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        return is_whole and _in_range(value, self.low, self.high, self.step)

    def examples(self) -> tuple[Value, ...]:
        """The ends, and what no setting takes that has gaps between them."""
        return (self.low, self.low + self.step, self.high)

    def describe(self) -> str:
        return f"{self.low}..{self.high}" + (f" step {self.step}" if self.step > 1 else "")


class CategoricalParameter(_Parameter):
    """One of the choices."""

    type: Literal["categorical"]
    choices: tuple[Value, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(set(self.choices)) < len(self.choices):
            raise ValueError(f"choices must differ from one another, got {list(self.choices)}")
        return self

    def suggest(self, trial: Trial | FixedTrial, path: str) -> Value:
        return trial.suggest_categorical(path, self.choices)

    def contains(self, value: Value) -> bool:
        return value in self.choices

    def examples(self) -> tuple[Value, ...]:
        return self.choices

    def describe(self) -> str:
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


def apply_params(base: TrainConfig, params: Mapping[str, Value], source: str) -> TrainConfig:
    """The base configuration with the params set at their paths.

    Raises:
        ConfigError: A value that TrainConfig does not allow, named with `source`.
    """
    values = base.model_dump()
    for path, value in params.items():
        *sections, name = path.split(".")
        section = values
        for part in sections:
            section = section[part]
        section[name] = value
    return validate(TrainConfig, values, source)


def default_params(base: TrainConfig, space: Space) -> Params:
    """The params of the base configuration itself, without those that `when` rules out."""
    values = {path: value_at(base, path) for path in space}
    return {path: value for path, value in values.items() if counts(space[path], values)}


def check_space(base: TrainConfig, space: Space, source: str) -> None:
    """Raises ConfigError unless every path, its values and the defaults are allowed."""
    for path, parameter in space.items():
        _check_path(path, source)
        _check_when(path, parameter, space, source)
        for value in parameter.examples():
            try:
                apply_params(base, {path: value}, source)
            except ConfigError as error:
                raise ConfigError(f"space.{path}: does not allow {value!r}: {error}") from None
        _check_warmup(path, parameter, base, source)
    check_params(default_params(base, space), space, "train", source)


def check_params(params: Mapping[str, Value], space: Space, where: str, source: str) -> None:
    """Raises ConfigError unless the params lie in the space; the first trial's must."""
    for path, value in params.items():
        _check_value(
            path, value, space, where, source, "the default configuration is the first trial, so "
        )


def check_guess(params: Mapping[str, Value], space: Space, where: str, source: str) -> None:
    """Raises ConfigError unless a user's own guess lies in the space, and all of it counts."""
    if not params:
        raise ConfigError(
            f"{where}: a guess sets no parameter; set one of {', '.join(space)}, or leave it out "
            f"({source})"
        )
    for path, value in params.items():
        _check_value(path, value, space, where, source)
        for other, values in space[path].when.items():
            if params.get(other) not in values:
                said = f"sets it to {params[other]!r}" if other in params else "leaves it out"
                raise ConfigError(
                    f"{where}.{path}: counts only when {other} is one of "
                    f"{', '.join(map(str, values))}, and the guess {said}; set it to one of them, "
                    f"or leave {path} out ({source})"
                )


def _check_value(
    path: str, value: Value, space: Space, where: str, source: str, reason: str = ""
) -> None:
    if path not in space:
        raise ConfigError(
            f"{where}.{path}: is not searched; {nearest_known(path, space)} ({source})"
        )
    if not space[path].contains(value):
        raise ConfigError(
            f"{where}.{path}: {value!r} lies outside its search space ({space[path].describe()}); "
            f"{reason}widen space.{path} or change {where}.{path} ({source})"
        )


def suggest_params(trial: Trial | FixedTrial, space: Space) -> Params:
    """Samples the space, those parameters first that others depend on."""
    params: Params = {}
    for path, parameter in sampling_order(space):
        if counts(parameter, params):
            params[path] = parameter.suggest(trial, path)
    return params


def sampling_order(space: Space) -> list[tuple[str, Parameter]]:
    """The parameters with their paths, those first that others depend on."""
    return sorted(space.items(), key=lambda item: bool(item[1].when))


def counts(parameter: Parameter, params: Mapping[str, Value]) -> bool:
    """Whether `when` lets the parameter count, given those sampled before it."""
    return all(params.get(path) in values for path, values in parameter.when.items())


# Searching these would compare trials by different measures, or means nothing.
UNSEARCHABLE: Final = (
    "data.data_dir",
    "data.val_fraction",
    "data.val_seed",
    "data.cache_dir",
    "data.cache_bytes",
    "data.num_workers",
    "optimizer.micro_batch_size",
    "early_stopping.metric",
    "max_epochs",
    "channels_last",
    "compile",
    "device",
    "seed",
)


def value_at(base: TrainConfig, path: str) -> Any:
    """The base configuration's value at a dotted path."""
    value: Any = base
    for part in path.split("."):
        value = getattr(value, part)
    return value


def _check_path(path: str, source: str) -> None:
    if path in UNSEARCHABLE:
        raise ConfigError(
            f"space.{path}: cannot be searched; set train.{path} for all trials ({source})"
        )
    parts = path.split(".")
    siblings = fields_at(TrainConfig, parts[:-1])
    if parts[-1] not in siblings:
        every = tuple(_all_paths())
        raise ConfigError(
            f"space.{path}: no such setting of a training; {nearest_known(path, every)} ({source})"
        )
    if fields_at(TrainConfig, parts):
        raise ConfigError(
            f"space.{path}: is a section, not a setting; it has "
            f"{', '.join(fields_at(TrainConfig, parts))} ({source})"
        )


def searchable_paths() -> tuple[str, ...]:
    """Every setting of a training that can be a parameter."""
    return tuple(path for path in _all_paths() if path not in UNSEARCHABLE)


def _all_paths(prefix: Sequence[str] = ()) -> Iterator[str]:
    for name in fields_at(TrainConfig, prefix):
        path = (*prefix, name)
        below = fields_at(TrainConfig, path)
        yield from _all_paths(path) if below else (".".join(path),)


def _check_warmup(path: str, parameter: Parameter, base: TrainConfig, source: str) -> None:
    """A longer one would never come to the learning rate that the trial has."""
    most = base.max_epochs / 2
    if path != "optimizer.warmup_epochs":
        return
    for value in parameter.examples():
        if isinstance(value, (int, float)) and value > most:
            raise ConfigError(
                f"space.{path}: does not allow {value:g}: at most {most:g}, half of "
                f"train.max_epochs={base.max_epochs} ({source})"
            )


def _check_when(path: str, parameter: Parameter, space: Space, source: str) -> None:
    for other, values in parameter.when.items():
        condition = space.get(other)
        if not isinstance(condition, CategoricalParameter) or condition.when:
            raise ConfigError(
                f"space.{path}.when: {other!r} is not an unconditional categorical parameter of "
                f"the space ({source})"
            )
        unknown = [value for value in values if not condition.contains(value)]
        if unknown:
            raise ConfigError(
                f"space.{path}.when: {unknown[0]!r} is no choice of {other} "
                f"({condition.describe()}) ({source})"
            )
