"""torch.compile for one training after another in a process."""

import sys

import torch
from torch import nn


def compiled(model: nn.Module) -> nn.Module:
    """The model with a compiled forward pass; drops what torch compiled before.

    All models share the code of `forward`, and torch compiles that code anew for each dropout
    rate. After eight compilations torch would run further models uncompiled and only log a line.
    """
    torch.compiler.reset()
    result: nn.Module = torch.compile(model)  # type: ignore[assignment]
    return result


def num_graphs() -> int:
    """Number of graphs that torch has compiled in this process; 0 if torch.compile is unused."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    return 0 if dynamo is None else int(dynamo.counters["stats"]["unique_graphs"])
