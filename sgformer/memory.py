"""Running out of memory: how it shows, and how to get back what was taken."""

import gc

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on a GPU or, where the system refuses it, on a CPU."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate" in str(error)
    )


def release_memory() -> None:
    """Frees what an abandoned step held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
