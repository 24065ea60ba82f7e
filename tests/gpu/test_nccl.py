"""Tests of NCCL, which groups of processes use on GPUs."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

pytestmark = pytest.mark.gpu


def work(_index: int, store: str) -> None:
    dist.init_process_group("nccl", init_method=f"file://{store}", rank=0, world_size=1)
    device = torch.device("cuda", torch.cuda.current_device())
    value = torch.ones(3, device=device)
    dist.all_reduce(value)
    assert value.tolist() == [1, 1, 1]
    gathered = [torch.empty_like(value)]
    dist.all_gather(gathered, value)
    assert gathered[0].tolist() == [1, 1, 1]
    model = torch.nn.Linear(4, 2).to(device)
    wrapped = DistributedDataParallel(model, forward_sync_buffers=False)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss = wrapped(torch.ones(5, 4, device=device)).float().sum()
    loss.backward()
    assert model.bias.grad.tolist() == [5, 5]
    dist.destroy_process_group()


def test_a_group_of_one_exchanges_tensors_and_gradients(tmp_path: Path) -> None:
    mp.spawn(work, args=(str(tmp_path / "store"),), nprocs=1)
