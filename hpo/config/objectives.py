"""Objectives, which a search optimises, and constraints, which the delivered trial satisfies."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Self, TypeVar, cast, get_args

from pydantic import model_serializer, model_validator

from sgformer.config import Metric, maximises
from sgformer.validation import FrozenConfig, nearest_known

Direction = Literal["maximize", "minimize"]
ArchitectureCost = Literal["num_parameters", "latency_ms", "bytes"]  # needs no training
TrialCost = Literal["int8_top1_drop"]  # of trained weights: measured when a training has ended
ObjectiveName = Literal[Metric, ArchitectureCost, TrialCost]
Key = TypeVar("Key")

METRICS: Final[tuple[str, ...]] = get_args(Metric)
ARCHITECTURE_COSTS: Final[tuple[str, ...]] = get_args(ArchitectureCost)
TRIAL_COSTS: Final[tuple[str, ...]] = get_args(TrialCost)
COSTS: Final = (*ARCHITECTURE_COSTS, *TRIAL_COSTS)


@dataclass(frozen=True)
class Objective:
    """A quantity that a search optimises, with its direction.

    Attributes:
        name: A metric, measured after each epoch, or a cost of an architecture or a trial.
        direction: 'maximize' or 'minimize'.
    """

    name: ObjectiveName
    direction: Direction

    @classmethod
    def named(cls, name: ObjectiveName) -> Self:
        """The objective with the only direction that makes sense for its name."""
        is_larger_better = name in METRICS and maximises(cast("Metric", name))
        return cls(name, "maximize" if is_larger_better else "minimize")

    @property
    def maximises(self) -> bool:
        """Whether larger values are better."""
        return self.direction == "maximize"

    @property
    def sign(self) -> float:
        """1.0 where larger values are better, -1.0 where smaller ones are."""
        return 1.0 if self.maximises else -1.0

    def loss(self, value: float) -> float:
        """The value as a loss: negated if larger values are better, so that smaller is better."""
        return -self.sign * value

    def best(self, values: Iterable[float]) -> float:
        """The best of the values; there must be at least one, and no NaN."""
        return (max if self.maximises else min)(values)

    def best_key(self, values: Mapping[Key, float]) -> Key | None:
        """The key of the best value, such as a trial's number; the first among equals.

        NaN is ignored; None if no value is left.
        """
        known = {key: value for key, value in values.items() if not math.isnan(value)}
        pick = max if self.maximises else min
        return pick(known, key=lambda key: known[key], default=None)

    def best_epoch(self, curve: Mapping[int, float]) -> int | None:
        """The epoch whose weights a training keeps: the best, and the last one among equals.

        NaN is ignored; None if no value is left.
        """
        return self.best_key(dict(sorted(curve.items(), reverse=True)))


class Constraint(FrozenConfig):
    """A bound on an objective; search files hold it as text, such as 'latency_ms <= 5'."""

    name: ObjectiveName
    sense: Literal["<=", ">="]
    bound: float

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return value
        parts = re.fullmatch(r"\s*(\w+)\s*(<=|>=)\s*([-+.\w]+)\s*", str(value))
        number = None if parts is None else _number(parts[3])
        if parts is None or number is None:
            raise ValueError(
                "expected 'NAME <= NUMBER' or 'NAME >= NUMBER', such as 'latency_ms <= 5', got "
                f"{value!r}"
            )
        if parts[1] not in (*METRICS, *COSTS):
            raise ValueError(
                f"no such objective: {parts[1]!r}; {nearest_known(parts[1], (*METRICS, *COSTS))}"
            )
        return {"name": parts[1], "sense": parts[2], "bound": number}

    @model_serializer
    def _as_text(self) -> str:
        return f"{self.name} {self.sense} {self.bound!r}"

    def __str__(self) -> str:
        return f"{self.name} {self.sense} {brief(self.bound)}"

    def violation(self, value: float) -> float:
        """The distance by which a value exceeds the bound; at most 0 if it satisfies the bound.

        It is relative to the bound (absolute for a bound of 0), because samplers add up the
        violations of constraints in different units.
        """
        excess = value - self.bound if self.sense == "<=" else self.bound - value
        return excess / abs(self.bound) if self.bound else excess


def brief(value: float) -> str:
    """The number as text with four digits, or grouped by thousands: '7.132', '5,350,562'."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
