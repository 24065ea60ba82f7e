"""BatchNorm in training: statistics over several processes, and of how many images they are."""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from timm.layers import convert_sync_batchnorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from sgformer.training.distributed import num_processes


@dataclass(frozen=True)
class StatisticsImages:
    """Of how many images BatchNorm takes its statistics.

    Attributes:
        now: In the last epoch.
        asked: As configured: without the halvings when memory ran out.
    """

    now: int
    asked: int


def has_batch_norm(model: nn.Module) -> bool:
    return any(isinstance(module, _BatchNorm) for module in model.modules())


def synchronised(model: nn.Module) -> nn.Module:
    """The model; on GPUs, its BatchNorm takes statistics over the images of all processes.

    PyTorch has no such BatchNorm for CPUs: there `average_statistics` follows each step.
    """
    is_on_gpu = any(parameter.is_cuda for parameter in model.parameters())
    if num_processes() == 1 or not is_on_gpu:
        return model
    converted: nn.Module = convert_sync_batchnorm(model)
    return converted


def is_synchronised(model: nn.Module) -> bool:
    """Whether BatchNorm takes statistics over the images of all processes."""
    return any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())


@torch.no_grad()
def average_statistics(model: nn.Module) -> None:
    """Replaces BatchNorm's running statistics by their mean over all processes.

    So all processes evaluate, average (EMA) and save the same model. Each process has normalised
    its own share of a batch. In a single process this changes nothing.
    """
    if num_processes() == 1:
        return
    running = [
        buffer
        for module in model.modules()
        if isinstance(module, _BatchNorm)
        for buffer in (module.running_mean, module.running_var)
        if buffer is not None
    ]
    if not running:
        return
    together = torch.cat([buffer.flatten() for buffer in running])
    dist.all_reduce(together)
    together /= num_processes()
    for buffer, mean in zip(
        running, together.split([buffer.numel() for buffer in running]), strict=True
    ):
        buffer.copy_(mean.view_as(buffer))
