"""The device of a training: choice, memory and utilization."""

import contextlib
import ctypes
import gc
import os
from pathlib import Path
from typing import Final

import pynvml
import torch

from sgformer.config import TrainConfig
from sgformer.errors import ConfigError

# Messages of the plain RuntimeErrors that PyTorch's CPU allocator and CUDA's libraries raise when
# memory runs out.
SIGNS: Final = (
    "DefaultCPUAllocator: can't allocate",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def choose_device(config: TrainConfig) -> torch.device:
    """The configured device; `auto` is a GPU if this machine has a usable one, else the CPU.

    Raises:
        ConfigError: `train.device` is cuda, and this machine has no usable GPU.
    """
    available = torch.cuda.is_available()
    if config.device == "cuda" and not available:
        raise ConfigError("train.device: cuda is asked for, and this machine has no usable GPU")
    if available and config.device != "cpu":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that an allocation failed, on a GPU or on the CPU."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in SIGNS)


def release_memory() -> None:
    """Returns the memory of an abandoned step or an ended training to the system and the GPU."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # the C library is not glibc
        ctypes.CDLL(None).malloc_trim(0)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def held_bytes() -> int:
    """Bytes that this process holds: anonymous pages (no mapped files), and memory of the GPU."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    sizes = dict(line.split(":", 1) for line in status.splitlines())
    own = sizes.get("RssAnon") or sizes.get("VmRSS") or "0 kB"
    on_gpu = torch.cuda.memory_reserved() if torch.cuda.is_available() else 0
    return 1024 * int(own.split()[0]) + on_gpu


def reset_peak_memory(device: torch.device) -> None:
    """Resets the GPU's peak, which `peak_memory_bytes` reports, to the present memory."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_bytes(device: torch.device) -> int:
    """Peak GPU memory allocated since the reset; on a CPU, the process's resident memory now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    num_pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return num_pages * os.sysconf("SC_PAGE_SIZE")


def gpu_utilization(device: torch.device) -> list[float]:
    """One number: the share of time in which the GPU works, 0..1; empty if that is unknown."""
    if device.type != "cuda":
        return []
    try:
        return [torch.cuda.utilization(device) / 100]
    except (pynvml.NVMLError, RuntimeError):
        return []
