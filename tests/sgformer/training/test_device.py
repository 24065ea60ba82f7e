import pytest
import torch

from sgformer.config import TrainConfig
from sgformer.errors import ConfigError
from sgformer.training.device import choose_device, held_bytes, is_out_of_memory, peak_memory_bytes

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("shapes do not match"), False),
        (ValueError("CUDA error: out of memory"), False),
    ],
)
def test_a_lack_of_memory_is_told_from_other_errors(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_memory_that_is_taken_is_counted() -> None:
    before, peak_before = held_bytes(), peak_memory_bytes(CPU)
    taken = torch.ones(2**26)
    assert held_bytes() - before > 0.9 * taken.nbytes
    assert peak_memory_bytes(CPU) - peak_before > 0.9 * taken.nbytes


def test_a_cpu_that_is_asked_for_is_taken() -> None:
    assert choose_device(TrainConfig(device="cpu")) == CPU


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_where_there_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="device: cuda is asked for, and this machine has no"):
        choose_device(TrainConfig(device="cuda"))
