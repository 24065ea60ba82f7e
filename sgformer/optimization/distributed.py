"""Exchange between processes that train one model together, by torch.distributed.

The caller starts the processes. In a single process every exchange returns its argument.
"""

from typing import Any

import torch
import torch.distributed as dist


def rank() -> int:
    """This process's number among the processes that train together, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def num_processes() -> int:
    """How many processes train together; 1 without torch.distributed."""
    return dist.get_world_size() if dist.is_initialized() else 1


def total(value: torch.Tensor) -> torch.Tensor:
    """The sum of a tensor over all processes."""
    if num_processes() > 1:
        value = value.clone()
        dist.all_reduce(value)
    return value


def broadcast(number: int) -> int:
    """The first process's `number`, returned in every process."""
    if num_processes() == 1:
        return number
    device = torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
    message = torch.tensor([number], device=device)
    dist.broadcast(message, src=0)
    return int(message)


def broadcast_object(value: Any) -> Any:
    """The first process's value, which can be pickled, returned in every process."""
    if num_processes() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def is_of_another_process(error: Exception) -> bool:
    """Whether the error reports a failed exchange, such as with a process that has ended."""
    text = str(error).lower()
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(word in text for word in ("gloo", "nccl"))
    )
