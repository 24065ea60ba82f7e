"""Memory: how much was taken, how running out of it shows, how to get back what was taken."""

import contextlib
import ctypes
import gc
import os
from pathlib import Path
from typing import Final

import torch

# How PyTorch's CPU allocator and CUDA's libraries say it, by a plain RuntimeError.
SIGNS: Final = (
    "DefaultCPUAllocator: can't allocate",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on a GPU or, where the system refuses it, on a CPU."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in SIGNS)


def release_memory() -> None:
    """Frees what an abandoned step or an ended training held, and gives it back."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # no glibc
        ctypes.CDLL(None).malloc_trim(0)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def held_bytes() -> int:
    """What the process holds now: its own pages, not those of mapped files, and on the GPU."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    sizes = dict(line.split(":", 1) for line in status.splitlines())
    own = sizes.get("RssAnon") or sizes.get("VmRSS") or "0 kB"
    on_gpu = torch.cuda.memory_reserved() if torch.cuda.is_available() else 0
    return 1024 * int(own.split()[0]) + on_gpu


def reset_peak_memory(device: torch.device) -> None:
    """Begins a new measurement."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_bytes(device: torch.device) -> int:
    """The most that was allocated on a GPU since the reset; on a CPU, what the process holds."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    num_pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return num_pages * os.sysconf("SC_PAGE_SIZE")
