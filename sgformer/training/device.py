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
from sgformer.cpus import usable_cpus
from sgformer.errors import ConfigError

# Messages of the plain RuntimeErrors that PyTorch's CPU allocator and CUDA's libraries raise when
# memory runs out.
SIGNS: Final = (
    "DefaultCPUAllocator: can't allocate",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "HOST_ALLOCATION_FAILED",  # cuDNN 9: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED, ...
    "DEVICE_ALLOCATION_FAILED",
)
# Messages of libraries that fail in this way for want of memory, and for other reasons too: they
# count only while the GPU is nearly full.
AMBIGUOUS_SIGNS: Final = (
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUBLAS_STATUS_INTERNAL_ERROR",
    "CUDNN_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_INTERNAL_ERROR",
    "CUDNN_STATUS_EXECUTION_FAILED",
    "unable to find an engine",
)
NEARLY_FULL: Final = 0.05  # share of the memory that is left
# Memory of a process on a GPU beside its tensors: CUDA's context and the libraries' kernels.
CONTEXT_BYTES: Final = 2**29


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


def gpu_name(device: torch.device) -> str | None:
    """The GPU's product name, such as 'NVIDIA H100'; None on a CPU."""
    return str(torch.cuda.get_device_name(device)) if device.type == "cuda" else None


def gpu_number(device: torch.device) -> str | None:
    """The GPU's number on its machine, or its UUID; None on a CPU.

    CUDA counts only the GPUs that a process may see.
    """
    if device.type != "cuda":
        return None
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    index = device.index or 0
    return visible[index] if index < len(visible) else str(index)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that an allocation failed, on a GPU or on the CPU."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    if not isinstance(error, RuntimeError):
        return False
    message = str(error)
    if any(text in message for text in SIGNS):
        return True
    if "nccl" in message.lower() and "out of memory" in message:
        return True
    return any(text in message for text in AMBIGUOUS_SIGNS) and _is_nearly_full()


def _is_nearly_full() -> bool:
    """Whether the GPU, or this process's share of it, has hardly any memory left."""
    if not torch.cuda.is_available():
        return False
    free, size = torch.cuda.mem_get_info()
    share = size * torch.cuda.get_per_process_memory_fraction()
    left = min(free, share - torch.cuda.memory_reserved())
    return left < NEARLY_FULL * share


def limit_memory(share: float) -> None:
    """Limits the memory of this process on its GPU to a share; 1, or more, lifts the limit.

    A process that asks for more gets an out-of-memory error, as on a smaller GPU, in place of
    taking the memory of the processes with which it shares the GPU.
    """
    if not torch.cuda.is_available() or share <= 0:
        return
    fraction = 1.0
    if share < 1:
        size = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        fraction = max(share / 2, share - CONTEXT_BYTES / size)
    torch.cuda.set_per_process_memory_fraction(fraction)


def limit_threads() -> None:
    """Makes torch use no more threads than this process has CPUs; torch does not see a quota."""
    torch.set_num_threads(min(torch.get_num_threads(), usable_cpus()))


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
