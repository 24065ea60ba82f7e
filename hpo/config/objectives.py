"""What a search optimises, and what its result has to keep to."""

import re
from typing import Any, Final, Literal, cast, get_args

from pydantic import model_serializer, model_validator

from sgformer.config import FrozenConfig, Metric, maximises, nearest_known

Direction = Literal["maximize", "minimize"]
Cost = Literal["num_parameters", "latency_ms"]
Objective = Literal[Metric, Cost]

METRICS: Final[tuple[str, ...]] = get_args(Metric)
COSTS: Final[tuple[str, ...]] = get_args(Cost)


def better_direction(objective: Objective) -> Direction:
    """The one that makes sense."""
    if objective in METRICS and maximises(cast("Metric", objective)):
        return "maximize"
    return "minimize"


class Constraint(FrozenConfig):
    """A bound on an objective; in a search file text, such as 'latency_ms <= 5'."""

    name: Objective
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
        """By how much a value misses the bound, as a share of it; at most 0 where it holds.

        Shares, because samplers add up what constraints of different units are missed by.
        """
        excess = value - self.bound if self.sense == "<=" else self.bound - value
        return excess / abs(self.bound) if self.bound else excess


def brief(value: float) -> str:
    """Such as '7.132' or '5,350,562'."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
