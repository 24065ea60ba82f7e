"""Runs a test's function in two processes of torch.distributed (gloo) on this machine."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from ports import free_port

from hpo import run_folder
from hpo.execution.training import Training, run_training
from sgformer.config import TrainConfig
from sgformer.data.image_data import load_image_data
from sgformer.errors import CheckpointError, ConfigError, OutOfMemoryError
from sgformer.model.sg_former import SGFormer
from sgformer.optimization.distributed import (
    broadcast,
    is_of_another_process,
    rank,
    total,
)
from sgformer.training.counts import Counts
from sgformer.training.trainer import Trainer


def in_two_processes(work: Callable[..., None], *args: object) -> None:
    mp.spawn(_join, args=(free_port(), work, args), nprocs=2)


def _join(index: int, port: int, work: Callable[..., None], args: tuple[object, ...]) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=index, world_size=2)
    work(*args)
    dist.destroy_process_group()


def check_exchange() -> None:
    assert total(torch.tensor([1.0, 2.0])).tolist() == [2.0, 4.0]
    assert broadcast(7 + rank()) == 7


def count(logits: torch.Tensor, labels: torch.Tensor, result: Path) -> None:
    """Stores the scores of images of which each process counts a share, which may be empty."""
    counts = Counts(logits.shape[1])
    for i in range(rank(), len(logits), 2):
        counts.add(logits[i : i + 1], labels[i : i + 1])
    counts.add_other_processes()
    torch.save(dataclasses.astuple(counts.scores()), result / str(rank()))


def train(config: TrainConfig, result: Path) -> None:
    trainer = Trainer(config, load_image_data(config.data))
    list(trainer.epochs())
    if rank() == 0:
        rows = [[m.train_loss, m.val_loss, m.val_top1, m.val_macro_f1] for m in trainer.history]
        weights = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
        torch.save({"rows": torch.tensor(rows), "weights": weights}, result)


def check_equal_states(config: TrainConfig) -> None:
    """Both processes have the same weights and running statistics, averaged ones included."""
    trainer = Trainer(config, load_image_data(config.data))
    list(trainer.epochs())
    tensors, _ = trainer.state_dict()
    assert any(name.startswith("ema.") and "running_mean" in name for name in tensors)
    own = torch.cat([tensor.flatten().double() for tensor in tensors.values()])
    both = [torch.empty_like(own) for _ in range(2)]
    dist.all_gather(both, own)
    assert torch.equal(*both)


def run_out_of_memory(config: TrainConfig) -> None:
    """The second process runs out of memory while the first waits for its gradients."""
    trainer = Trainer(config, load_image_data(config.data))

    def fail(module: torch.nn.Module, _inputs: object) -> None:
        if isinstance(module, SGFormer) and rank() == 1:
            raise MemoryError

    torch.nn.modules.module.register_module_forward_pre_hook(fail)
    if rank() == 0:
        with pytest.raises(RuntimeError) as lost:
            next(trainer.epochs())
        assert is_of_another_process(lost.value)
        return
    with pytest.raises(OutOfMemoryError, match="a micro-batch of 10 does not fit") as caught:
        next(trainer.epochs())
    assert caught.value.micro_batch_size == 10


def refuse(config: TrainConfig) -> None:
    with pytest.raises(ConfigError, match=r"2 processes cannot share a batch, .* of 3 images"):
        Trainer(config, load_image_data(config.data))


def resume_apart(config: TrainConfig, folders: tuple[Path, Path]) -> None:
    """One process of a group sees an older checkpoint than the first."""
    run_folder.SECONDS_UNTIL_SEEN = 0.0
    epochs = run_training(Training(config, folders[rank()]))
    if rank() == 0:
        assert len(next(filter(None, epochs)).epochs) == 2  # those before the resume
        return
    with pytest.raises(CheckpointError, match=f"{folders[1]} .* is of epoch 1 and not of 2"):
        next(epochs)
