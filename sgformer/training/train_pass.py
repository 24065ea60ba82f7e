"""One pass over the training images, an optimizer step a batch."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from sgformer.data.loader import Batch, TimedBatches, TrainPlan
from sgformer.data.model_input import ModelInput
from sgformer.optimization.distributed import total
from sgformer.optimization.optimizer import learning_rate_at
from sgformer.optimization.optimizer_step import OptimizerStep
from sgformer.seeding import seed_of
from sgformer.training.device import gpu_utilization

# Steps from one check that losses are finite to the next; each check waits for the GPU.
STEPS_BETWEEN_CHECKS: Final = 20
# Losses in a row that are not finite, after which a training has diverged. Under fp16 a loss may
# overflow until the gradient scaler, which skips its step, has found a scale.
MOST_NOT_FINITE: Final = {"float32": 1, "bf16": 1, "fp16": 20}


@dataclass(frozen=True)
class TrainPass:
    """Measurements of an epoch's pass over the training images.

    Attributes:
        loss: Mean loss over the images, without skipped steps; not a number if the training has
            diverged, which ends the pass.
        learning_rate: Learning rate of the last step.
        images_per_second: Training images a second, over all processes.
        data_seconds: Seconds spent waiting for images.
        gpu_utilization: Mean share of time in which the GPU worked, 0..1; None if unknown.
    """

    loss: float
    learning_rate: float
    images_per_second: float
    data_seconds: float
    gpu_utilization: float | None


class _Losses:
    """The losses of a pass, each summed over this process's images; they stay on the device.

    A step whose loss is not finite in any process is skipped in all.
    """

    def __init__(self, most_not_finite: int) -> None:
        self._most_not_finite = most_not_finite
        self._losses: list[torch.Tensor] = []
        self._skipped: list[bool] = []  # of the first losses, as far as they were checked

    def __len__(self) -> int:
        return len(self._losses)

    def add(self, loss: torch.Tensor) -> None:
        self._losses.append(loss)

    def have_diverged(self) -> bool:
        """Whether too many losses in a row were not finite; waits for the device."""
        new = self._losses[len(self._skipped) :]
        if new:
            not_finite = total((~torch.isfinite(torch.stack(new))).float())
            self._skipped += (not_finite > 0).tolist()
        flags = "".join("x" if skipped else "." for skipped in self._skipped)
        return "x" * self._most_not_finite in flags

    def mean(self, batch_size: int) -> float:
        """The mean over the images of all processes, without skipped steps."""
        if self.have_diverged() or all(self._skipped):
            return math.nan
        pairs = zip(self._losses, self._skipped, strict=True)
        kept = [loss for loss, skipped in pairs if not skipped]
        return float(total(torch.stack(kept).sum())) / (len(kept) * batch_size)


def train_pass(
    optimizer_step: OptimizerStep,
    batches: Iterator[Batch],
    model_input: ModelInput,
    plan: TrainPlan,
    epoch: int,
    micro_batch_size: int,
) -> TrainPass:
    """Trains on an epoch's batches.

    Args:
        optimizer_step: The model, its optimizer, and the config of the training.
        batches: The loaded batches of the plan.
        model_input: Normalises and erases the images.
        plan: The batches of the epoch.
        epoch: The number of the epoch, from 1.
        micro_batch_size: Images that this process runs through the model at a time.
    """
    config, device = optimizer_step.config, optimizer_step.device
    optimizer_step.begin_epoch(epoch)
    losses = _Losses(MOST_NOT_FINITE[optimizer_step.numerics.precision])
    utilizations: list[float] = []
    learning_rate, start = 0.0, time.perf_counter()
    timed = TimedBatches(batches)
    for i, batch in enumerate(timed):
        step = (epoch - 1) * len(plan) + i
        learning_rate = learning_rate_at(step, len(plan), config.max_epochs, config.optimizer)
        loss = optimizer_step.run(
            model_input(batch),
            batch.labels,
            seed=seed_of(seed_of(config.seed, epoch), "step", i),
            number=step + 1,
            learning_rate=learning_rate,
            batch_size=plan.batch_size,
            micro_batch_size=micro_batch_size,
        )
        losses.add(loss)
        if i % STEPS_BETWEEN_CHECKS == 0:
            utilizations += gpu_utilization(device) if i else []
            if losses.have_diverged():
                break
    utilizations += gpu_utilization(device)
    mean_loss = losses.mean(plan.batch_size)  # waits for the device, before time is taken
    return TrainPass(
        mean_loss,
        learning_rate,
        len(losses) * plan.batch_size / (time.perf_counter() - start),
        timed.seconds,
        float(np.mean(utilizations)) if utilizations else None,
    )
