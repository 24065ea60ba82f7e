"""One optimizer step on one batch: mixing, autocast, micro-batches, several processes, EMA."""

import contextlib
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from sgformer.catalog import model_facts
from sgformer.config import TrainConfig
from sgformer.data.augmentation import BatchMixer
from sgformer.data.fused_input import Given, answer, images_of, split
from sgformer.data.image_data import Samples
from sgformer.data.plans import share_sizes
from sgformer.optimization.batch_norm import (
    average_statistics,
    statistics_finite,
    statistics_kept,
)
from sgformer.optimization.compilation import compiled, num_graphs
from sgformer.optimization.distributed import num_processes, rank
from sgformer.optimization.freezing import Freezing
from sgformer.optimization.micro_batches import micro_batch_sizes
from sgformer.optimization.numerics import allow_tf32, choose_numerics
from sgformer.optimization.optimizer import create_optimizer, set_learning_rate
from sgformer.optimization.teacher import Teacher
from sgformer.seeding import seed_of

# With `class_balance: loss`, the weight of an image of a rare class as a multiple of that of the
# most frequent class's images. An image of weight 1,000 would be most of its batch's gradient.
MOST_CLASS_WEIGHT: Final = 100.0
# Tensors by name, and the state of the gradient scaler.
State = tuple[dict[str, torch.Tensor], dict[str, Any]]


class OptimizerStep:
    """Runs optimizer steps; holds model, optimizer, gradient scaler and EMA, which steps change.

    Randomness in a step (mixup, dropout) depends only on the step's seed and the process's rank,
    so a resumed training draws the same numbers.

    Attributes:
        model: The model with the trained weights.
        ema: The model with the exponential moving average of the weights; None without
            `ema_decay`.
        numerics: The number type and memory layout of the steps.
    """

    def __init__(
        self,
        model: nn.Module,
        num_classes: int,
        config: TrainConfig,
        samples: Samples,
        device: torch.device,
        teacher: Teacher | None = None,
    ) -> None:
        self.model, self.config, self.device = model, config, device
        self._teacher = teacher
        self._has_batch_norm = model_facts(config.model.name).has_batch_norm
        self.numerics = choose_numerics(config, model, device)
        allow_tf32(device)
        if self.numerics.channels_last:
            model.to(memory_format=torch.channels_last)
        self.optimizer = create_optimizer(model, config.optimizer)
        self.scaler = self.numerics.new_scaler()
        self.ema = None
        if config.ema_decay is not None:
            self.ema = ModelEmaV3(model, config.ema_decay, use_warmup=True)
        self._mix = None
        if config.augmentation.mixup or config.augmentation.cutmix:
            self._mix = BatchMixer(config, num_classes)
        self._class_weights = None
        if config.class_balance == "loss":
            weights = class_weights(samples[:, 1], num_classes)
            self._class_weights = torch.tensor(weights, dtype=torch.float32, device=device)
        self._num_graphs_before = num_graphs()
        self._freezing = Freezing(model, config)
        self._freezing.begin_epoch(1)
        self._forward = self._wrapped()

    def begin_epoch(self, epoch: int) -> None:
        """Sets the model to training, except for weights that are frozen in this epoch."""
        if self._freezing.begin_epoch(epoch):
            del self._forward  # with its hooks on the gradients
            self._forward = self._wrapped()

    def run(
        self,
        images: Given,
        labels: torch.Tensor,
        *,
        seed: int,
        number: int,
        learning_rate: float,
        batch_size: int,
        micro_batch_size: int,
    ) -> torch.Tensor:
        """Runs a step; returns the loss before the update, summed over this process's images.

        Args:
            images: This process's normalised images on the device, (B, 3, H, W), with any
                features; mixup changes the images in place.
            labels: The images' class indices, (B,).
            seed: The seed of this step.
            number: The number of this step in the training, from 1.
            learning_rate: The learning rate of this step.
            batch_size: Images of the step in all processes together.
            micro_batch_size: Images that this process runs through the model at a time.
        """
        targets: torch.Tensor = labels.to(self.device, non_blocking=True)
        if self._mix is not None:
            np.random.seed(seed % 2**32)  # so all processes draw the same mixup
            images, targets = self._mix(images, targets)
        torch.manual_seed(seed_of(seed, rank()))
        self.optimizer.zero_grad(set_to_none=True)
        scale = num_processes() / batch_size  # torch averages gradients over processes
        shares = share_sizes(batch_size, num_processes())
        sizes = micro_batch_sizes(
            shares, rank(), micro_batch_size, for_batch_norm=self._has_batch_norm
        )
        parts = list(zip(split(images, sizes), targets.split(sizes), strict=True))
        with self._overflow_forgotten():
            loss = self._add_up_gradients(parts, scale)
            average_statistics(self.model)
        self._update(number, learning_rate)
        return loss

    def state_dict(self) -> State:
        """The tensors of model, optimizer and EMA by name, and the gradient scaler's state."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
        if self.ema is not None:
            tensors |= {f"ema.{name}": v for name, v in self.ema.module.state_dict().items()}
        return tensors, self.scaler.state_dict()

    @property
    def is_compiled(self) -> bool:
        """Whether torch has compiled a forward pass since this object was made."""
        return num_graphs() > self._num_graphs_before

    def snapshot(self, spare: Mapping[str, torch.Tensor] | None = None) -> State:
        """A copy of `state_dict` in CPU memory, which later steps do not change.

        Args:
            spare: Tensors of a former copy, whose memory is used again: a gigabyte of new memory
                takes longer than its copy.
        """
        tensors, scaler = self.state_dict()
        spare = spare or {}
        copies = {name: _copied(tensor, spare.get(name)) for name, tensor in tensors.items()}
        return copies, dict(scaler)

    def load_state_dict(self, tensors: dict[str, torch.Tensor], scaler: dict[str, Any]) -> None:
        """Restores a state that `state_dict` returned."""
        parts: dict[str, dict[str, torch.Tensor]] = {"model": {}, "optimizer": {}, "ema": {}}
        for name, value in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = value
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in parts["optimizer"].items():
            index, _, key = name.partition(".")
            # AdamW takes tensors of its own device as they are, and changes them in place.
            own = value.clone() if value.device == self.device else value
            state.setdefault(int(index), {})[key] = own
        # What an abandoned step has left is freed first: memory may just have run out.
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer.state.clear()
        self.model.load_state_dict(parts["model"])
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        if self.ema is not None:
            self.ema.module.load_state_dict(parts["ema"])
        # A new scaler, because loading a state does not clear a scaler's record of an open step.
        self.scaler = self.numerics.new_scaler()
        self.scaler.load_state_dict(scaler)

    def _wrapped(self) -> nn.Module:
        """The model as a step calls it: compiled, and with gradients shared by all processes."""
        model = compiled(self.model) if self.config.compile else self.model
        if num_processes() > 1:
            return DistributedDataParallel(model, forward_sync_buffers=False)
        return model

    def _add_up_gradients(
        self, parts: list[tuple[Given, torch.Tensor]], scale: float
    ) -> torch.Tensor:
        """Runs forward and backward passes of micro-batches; returns the sum of their losses."""
        losses = []
        for i, (images, targets) in enumerate(parts):
            with self._gradients_wait(wait=i < len(parts) - 1):
                loss = self._loss(images, targets)
                with self._statistics_kept():
                    self.scaler.scale(loss * scale).backward()
            losses.append(loss.detach())
        return torch.stack(losses).sum()

    def _loss(self, images: Given, targets: torch.Tensor) -> torch.Tensor:
        with self.numerics.autocast():
            logits = answer(self._forward, images)
        # The mixer has smoothed the targets already.
        smoothing = 0.0 if self._mix else self.config.label_smoothing
        loss = F.cross_entropy(
            logits.float(),
            targets,
            weight=self._class_weights,
            reduction="sum",
            label_smoothing=smoothing,
        )
        if self._teacher is None:
            return loss
        settings = self.config.distillation
        with self.numerics.autocast():
            taught = self._teacher.divergence(
                images_of(images), logits.float(), settings.temperature
            )
        return (1 - settings.weight) * loss + settings.weight * taught

    def _update(self, number: int, learning_rate: float) -> None:
        set_learning_rate(self.optimizer, learning_rate)
        max_norm = self.config.optimizer.max_grad_norm
        if max_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), max_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema is not None:
            self.ema.update(self.model, step=number)

    def _statistics_kept(self) -> contextlib.AbstractContextManager[None]:
        """A context for a backward pass, which must not update BatchNorm's statistics."""
        if self._has_batch_norm and self.config.grad_checkpointing:
            return statistics_kept(self.model)
        return contextlib.nullcontext()

    def _overflow_forgotten(self) -> contextlib.AbstractContextManager[None]:
        """A context after which no running statistics have overflowed."""
        if self._has_batch_norm and self.numerics.precision == "fp16":
            return statistics_finite(self.model)
        return contextlib.nullcontext()

    def _gradients_wait(self, *, wait: bool) -> contextlib.AbstractContextManager[None]:
        """A context in which, with `wait`, the backward pass does not exchange gradients yet."""
        if wait and isinstance(self._forward, DistributedDataParallel):
            return self._forward.no_sync()
        return contextlib.nullcontext()


def class_weights(labels: npt.NDArray[np.int64], num_classes: int) -> npt.NDArray[np.float64]:
    """A weight for each class (classes,), inverse to its number of images, up to a bound.

    A class with less than a MOST_CLASS_WEIGHT-th of the most frequent class's images is weighted
    as one with that many. The weights' mean over the images is 1, so that losses stay comparable.

    Args:
        labels: The class of each image, (N,).
        num_classes: The number of classes.
    """
    counts = np.bincount(labels, minlength=num_classes)
    counted = np.maximum(counts, counts.max() / MOST_CLASS_WEIGHT)
    weights: npt.NDArray[np.float64] = len(labels) / ((counts / counted).sum() * counted)
    return weights


def _copied(tensor: torch.Tensor, spare: torch.Tensor | None) -> torch.Tensor:
    """A copy of the tensor in CPU memory, that of `spare` if it has the same shape and type."""
    if spare is None or (spare.shape, spare.dtype) != (tensor.shape, tensor.dtype):
        return tensor.detach().to("cpu", copy=True)
    return spare.copy_(tensor.detach())
