"""Exchange between processes that train one model together, by torch.distributed.

The caller starts the processes. In a single process every exchange returns its argument.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.integer[Any]]


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


def is_of_another_process(error: Exception) -> bool:
    """Whether the error reports a failed exchange, such as with a process that has ended."""
    text = str(error).lower()
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(word in text for word in ("gloo", "nccl"))
    )


def interleave(
    logits: FloatArray, labels: IntArray, num_rows: int, device: torch.device
) -> tuple[FloatArray, IntArray]:
    """All processes' rows in one array; row i comes from process i % num_processes().

    Args:
        logits: This process's logits, (n, classes) float32.
        labels: This process's labels, (n,).
        num_rows: Number of rows of all processes together.
        device: The device through which the processes exchange tensors.
    """
    size = num_processes()
    if size == 1:
        return logits, labels
    rows = torch.zeros(-(-num_rows // size), logits.shape[1] + 1, dtype=torch.float64)
    rows[: len(logits), :-1] = torch.from_numpy(logits)
    rows[: len(logits), -1] = torch.from_numpy(labels)
    gathered = [torch.empty_like(rows, device=device) for _ in range(size)]
    dist.all_gather(gathered, rows.to(device))
    together = torch.stack(gathered, dim=1).flatten(0, 1)[:num_rows].cpu().numpy()
    return together[:, :-1].astype(np.float32), together[:, -1].astype(np.int64)
