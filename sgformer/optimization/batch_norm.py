"""BatchNorm in training: its running statistics, and of how many images they are."""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from timm.layers import convert_sync_batchnorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from sgformer.optimization.distributed import num_processes


@dataclass(frozen=True)
class StatisticsImages:
    """Of how many images BatchNorm takes its statistics.

    Attributes:
        now: In the last epoch.
        asked: As configured: without the halvings when memory ran out.
    """

    now: int
    asked: int


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
    running = _running(model)
    if not running:
        return
    together = _flat(running)
    dist.all_reduce(together)
    _set(running, together / num_processes())


@torch.no_grad()
def recompute_statistics(model: nn.Module, batches: Iterable[torch.Tensor]) -> None:
    """Takes BatchNorm's running statistics anew, as the mean over batches (B, 3, H, W).

    The mean of several models' weights has other activations than each of them. All else stays in
    eval mode. A model without BatchNorm asks for no batch.
    Source: Izmailov et al., arXiv:1803.05407, section 3.2.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches
        norm.train()
    for images in batches:
        model(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()


@contextlib.contextmanager
def statistics_kept(model: nn.Module) -> Iterator[None]:
    """A context at whose end BatchNorm's running statistics are what they were at its start.

    A backward pass that computes activations anew would update the statistics a second time.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    buffers = [buffer for norm in norms for buffer in norm.buffers(recurse=False)]
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)


@contextlib.contextmanager
def statistics_finite(model: nn.Module) -> Iterator[None]:
    """A context at whose end running statistics that overflowed are what they were at its start.

    Under fp16 an activation may overflow. The gradient scaler then skips the step, but BatchNorm
    has updated its statistics. This does not wait for the device.
    """
    running = _running(model)
    if not running:
        yield
        return
    before = _flat(running)
    yield
    after = _flat(running)
    _set(running, torch.where(torch.isfinite(after), after, before))


def _running(model: nn.Module) -> list[torch.Tensor]:
    """The running means and variances."""
    return [
        buffer
        for module in model.modules()
        if isinstance(module, _BatchNorm)
        for buffer in (module.running_mean, module.running_var)
        if buffer is not None
    ]


def _flat(tensors: list[torch.Tensor]) -> torch.Tensor:
    """A copy of the tensors as one vector."""
    return torch.cat([tensor.flatten() for tensor in tensors])


def _set(tensors: list[torch.Tensor], flat: torch.Tensor) -> None:
    parts = flat.split([tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))
