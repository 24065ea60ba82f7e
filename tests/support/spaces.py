"""Parameters of search spaces, and spaces made of them."""

from typing import Any

from pydantic import TypeAdapter

from hpo.config.search_space import Parameter
from sgformer.config import TrainConfig

ADAPTER: TypeAdapter[Any] = TypeAdapter(dict[str, Parameter])
BASE = TrainConfig()


def space(**parameters: dict) -> Any:
    """A space; `__` in a name stands for the dot of its path."""
    return ADAPTER.validate_python({k.replace("__", "."): v for k, v in parameters.items()})


RATE = {"type": "float", "low": 1e-5, "high": 1e-2, "log": True}
DROP = {"type": "float", "low": 0.0, "high": 0.5, "step": 0.05}
NAME = {"type": "categorical", "choices": ["sg_former_b0", "sg_former_b1"]}
BATCH = {"type": "int", "low": 16, "high": 256, "log": True}
FRACTIONS = {"type": "float", "low": 32, "high": 256}
POLICY = {"type": "categorical", "choices": ["guide", "mild"]}
ERASING = {"type": "float", "low": 0.0, "high": 0.5, "when": {"augmentation.policy": ["guide"]}}
