import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from sgformer.config import TrainConfig
from sgformer.errors import ConfigError
from sgformer.training.device import (
    choose_device,
    gpu_number,
    is_out_of_memory,
    limit_memory,
    limit_threads,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"), True),
        (RuntimeError("NCCL error: ncclUnhandledCudaError: Cuda failure 2 'out of memory'"), True),
        (RuntimeError("NCCL error: ncclUnhandledCudaError: Cuda failure 700"), False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED"), False),  # without a GPU
        (RuntimeError("shapes do not match"), False),
        (ValueError("CUDA error: out of memory"), False),
    ],
)
def test_a_lack_of_memory_is_told_from_other_errors(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


GIB = 2**30


class FakeGpu:
    """Stands for a GPU of 80 GiB in place of torch's functions; this machine needs none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free, self.reserved, self.fraction = 40 * GIB, 0, 1.0
        for name, function in {
            "is_available": lambda: True,
            "current_device": lambda: 0,
            "get_device_properties": lambda _: SimpleNamespace(total_memory=80 * GIB),
            "mem_get_info": lambda: (self.free, 80 * GIB),
            "memory_reserved": lambda: self.reserved,
            "get_per_process_memory_fraction": lambda: self.fraction,
            "set_per_process_memory_fraction": lambda share: setattr(self, "fraction", share),
        }.items():
            monkeypatch.setattr(torch.cuda, name, function)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    return FakeGpu(monkeypatch)


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "CUDA error: CUBLAS_STATUS_INTERNAL_ERROR",
        "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
        "GET was unable to find an engine to execute this computation",
    ],
)
def test_a_librarys_vague_error_is_a_lack_of_memory_only_on_a_full_gpu(
    gpu: FakeGpu, message: str
) -> None:
    assert not is_out_of_memory(RuntimeError(message))
    gpu.free = GIB
    assert is_out_of_memory(RuntimeError(message))
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    gpu.free, gpu.fraction, gpu.reserved = 40 * GIB, 0.25, 20 * GIB  # all of its share
    assert is_out_of_memory(RuntimeError(message))


def test_a_share_of_a_gpu_limits_memory_and_a_whole_one_does_not(gpu: FakeGpu) -> None:
    limit_memory(0.5)
    assert gpu.fraction == pytest.approx(0.5 - 1 / 160)  # half a GiB is CUDA's own
    limit_memory(0)  # a training on the CPU
    assert gpu.fraction < 0.5
    limit_memory(1)
    assert gpu.fraction == 1
    limit_memory(0.01)
    assert gpu.fraction == pytest.approx(0.005)
    limit_memory(4)  # a group of four processes
    assert gpu.fraction == 1


def test_memory_that_is_taken_is_counted() -> None:
    # In a process of its own: this one's peak may lie far above what it has now.
    code = """
import torch
from sgformer.training.device import held_bytes, peak_memory_bytes

cpu = torch.device("cpu")
before, peak_before = held_bytes(), peak_memory_bytes(cpu)
taken = torch.ones(2**26)
assert held_bytes() - before > 0.9 * taken.nbytes
assert peak_memory_bytes(cpu) - peak_before > 0.9 * taken.nbytes
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("visible", "device", "expected"),
    [("3,5", "cuda:1", "5"), ("", "cuda:1", "1"), ("3", "cuda", "3"), ("3", "cpu", None)],
)
def test_a_gpu_has_the_number_that_its_machine_gives_it(
    monkeypatch: pytest.MonkeyPatch, visible: str, device: str, expected: str | None
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu_number(torch.device(device)) == expected


def test_a_cpu_that_is_asked_for_is_taken() -> None:
    assert choose_device(TrainConfig(device="cpu")) == CPU


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_where_there_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="device: cuda is asked for, and this machine has no"):
        choose_device(TrainConfig(device="cuda"))


def test_torch_takes_no_more_threads_than_a_quota_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    former = torch.get_num_threads()
    monkeypatch.setattr("sgformer.training.device.usable_cpus", lambda: 2)
    try:
        torch.set_num_threads(3)
        limit_threads()
        assert torch.get_num_threads() == 2
        torch.set_num_threads(1)  # as a user has asked for
        limit_threads()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(former)
