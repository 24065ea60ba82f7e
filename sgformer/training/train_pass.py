"""One pass over the training images, an optimizer step a batch."""

import time
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from sgformer.data.loader import BatchLoader, TimedBatches, TrainPlan
from sgformer.seeding import seed_of
from sgformer.training.device import gpu_utilization
from sgformer.training.distributed import total
from sgformer.training.optimizer import learning_rate_at
from sgformer.training.optimizer_step import OptimizerStep

# Steps from one check that the loss is finite to the next; each check waits for the GPU.
STEPS_BETWEEN_CHECKS: Final = 20


@dataclass(frozen=True)
class TrainPass:
    """Measurements of an epoch's pass over the training images.

    Attributes:
        loss: Mean loss over the images; not finite if a checked loss was not finite, which ends
            the pass.
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


def train_pass(
    optimizer_step: OptimizerStep,
    loader: BatchLoader,
    plan: TrainPlan,
    epoch: int,
    micro_batch_size: int,
) -> TrainPass:
    """Trains on an epoch's batches.

    Args:
        optimizer_step: The model, its optimizer, and the config of the training.
        loader: Loads the batches.
        plan: The batches of the epoch.
        epoch: The number of the epoch, from 1.
        micro_batch_size: Images that this process runs through the model at a time.
    """
    config, seed = optimizer_step.config, seed_of(optimizer_step.config.seed, epoch)
    optimizer_step.model.train()
    losses: list[torch.Tensor] = []
    utilizations: list[float] = []
    learning_rate, start = 0.0, time.perf_counter()
    batches = TimedBatches(loader.batches(plan))
    for i, (images, labels) in enumerate(batches):
        step = (epoch - 1) * len(plan) + i
        learning_rate = learning_rate_at(step, len(plan), config.max_epochs, config.optimizer)
        loss = optimizer_step.run(
            images,
            labels,
            seed=seed_of(seed, "step", i),
            number=step + 1,
            learning_rate=learning_rate,
            batch_size=plan.batch_size,
            micro_batch_size=micro_batch_size,
        )
        losses.append(loss)
        if i % STEPS_BETWEEN_CHECKS == 0:
            if i:
                utilizations += gpu_utilization(optimizer_step.device)
            if not torch.isfinite(total(loss)):
                break
    utilizations += gpu_utilization(optimizer_step.device)
    num_images = len(losses) * plan.batch_size
    mean_loss = float(total(torch.stack(losses).sum())) / num_images
    return TrainPass(
        mean_loss,
        learning_rate,
        num_images / (time.perf_counter() - start),
        batches.seconds,
        float(np.mean(utilizations)) if utilizations else None,
    )
