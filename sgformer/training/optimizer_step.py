"""One optimizer step on one batch: mixing, autocast, micro-batches, several processes, EMA."""

import contextlib
import sys
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from sgformer.config import TrainConfig
from sgformer.data.augmentation import BatchMixer
from sgformer.data.image_data import Samples
from sgformer.seeding import seed_of
from sgformer.training.distributed import num_processes, rank
from sgformer.training.freezing import Freezing
from sgformer.training.optimizer import create_optimizer, set_learning_rate

DTYPES: Final = {"bf16": torch.bfloat16, "fp16": torch.float16}


class OptimizerStep:
    """Runs optimizer steps; holds model, optimizer, gradient scaler and EMA, which steps change.

    Randomness in a step (mixup, dropout) depends only on the step's seed and the process's rank,
    so a resumed training draws the same numbers.

    Attributes:
        model: The model with the trained weights.
        ema: The model with the exponential moving average of the weights; None without
            `ema_decay`.
    """

    def __init__(
        self,
        model: nn.Module,
        num_classes: int,
        config: TrainConfig,
        samples: Samples,
        device: torch.device,
    ) -> None:
        self.model, self.config, self.device = model, config, device
        self.optimizer = create_optimizer(model, config.optimizer)
        self.scaler = self._new_scaler()
        self.ema = None
        if config.ema_decay is not None:
            self.ema = ModelEmaV3(model, config.ema_decay, use_warmup=True)
        self._mix = None
        if config.augmentation.mixup or config.augmentation.cutmix:
            self._mix = BatchMixer(config, num_classes)
        self._class_weights = None
        if config.class_balance == "loss":
            counts = np.bincount(samples[:, 1], minlength=num_classes)
            # The weights' mean over the images is 1, so that losses stay comparable.
            weights = len(samples) / (num_classes * counts)
            self._class_weights = torch.tensor(weights, dtype=torch.float32, device=device)
        self._num_graphs_before = _num_graphs()
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
        images: torch.Tensor,
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
            images: This process's images, (B, 3, H, W); mixup changes the tensor in place.
            labels: The images' class indices, (B,).
            seed: The seed of this step.
            number: The number of this step in the training, from 1.
            learning_rate: The learning rate of this step.
            batch_size: Images of the step in all processes together.
            micro_batch_size: Images that this process runs through the model at a time.
        """
        targets: torch.Tensor = labels.to(self.device, non_blocking=True)
        layout = (
            torch.channels_last if self.config.channels_last is True else torch.contiguous_format
        )
        images = images.to(self.device, non_blocking=True, memory_format=layout)
        if self._mix is not None:
            np.random.seed(seed % 2**32)  # so all processes draw the same mixup
            images, targets = self._mix(images, targets)
        torch.manual_seed(seed_of(seed, rank()))
        self.optimizer.zero_grad(set_to_none=True)
        scale = num_processes() / batch_size  # torch averages gradients over processes
        parts = list(
            zip(images.split(micro_batch_size), targets.split(micro_batch_size), strict=True)
        )
        losses = []
        for i, (part, part_targets) in enumerate(parts):
            with self._gradients_wait(wait=i < len(parts) - 1):
                loss = self._loss(part, part_targets)
                self.scaler.scale(loss * scale).backward()
            losses.append(loss.detach())
        self._update(number, learning_rate)
        return torch.stack(losses).sum()

    def state_dict(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
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
        return _num_graphs() > self._num_graphs_before

    def snapshot(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """A copy of `state_dict` in CPU memory, which later steps do not change."""
        tensors, scaler = self.state_dict()
        copies = {name: t.detach().to("cpu", copy=True) for name, t in tensors.items()}
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
            state.setdefault(int(index), {})[key] = value
        self.model.load_state_dict(parts["model"])
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        if self.ema is not None:
            self.ema.module.load_state_dict(parts["ema"])
        # A new scaler, because loading a state does not clear a scaler's record of an open step.
        self.scaler = self._new_scaler()
        self.scaler.load_state_dict(scaler)

    def _new_scaler(self) -> torch.amp.GradScaler:
        return torch.amp.GradScaler(self.device.type, enabled=self.config.precision == "fp16")

    def _wrapped(self) -> nn.Module:
        """The model as a step calls it: compiled, and with gradients shared by all processes."""
        model = _compiled(self.model) if self.config.compile else self.model
        if num_processes() > 1:
            return DistributedDataParallel(model, forward_sync_buffers=False)
        return model

    def _loss(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        dtype = DTYPES.get(self.config.precision)
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
            logits = self._forward(images)
        # The mixer has smoothed the targets already.
        smoothing = 0.0 if self._mix else self.config.label_smoothing
        return F.cross_entropy(
            logits.float(),
            targets,
            weight=self._class_weights,
            reduction="sum",
            label_smoothing=smoothing,
        )

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

    def _gradients_wait(self, *, wait: bool) -> contextlib.AbstractContextManager[None]:
        """A context in which, with `wait`, the backward pass does not exchange gradients yet."""
        if wait and isinstance(self._forward, DistributedDataParallel):
            return self._forward.no_sync()
        return contextlib.nullcontext()


def _compiled(model: nn.Module) -> nn.Module:
    """The model with a compiled forward pass; drops what torch compiled before.

    All models share the code of `forward`, and torch compiles that code anew for each dropout
    rate. After eight compilations torch would run further models uncompiled and only log a line.
    """
    torch.compiler.reset()
    compiled: nn.Module = torch.compile(model)  # type: ignore[assignment]
    return compiled


def _num_graphs() -> int:
    """Number of graphs that torch has compiled in this process; 0 if torch.compile is unused."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    return 0 if dynamo is None else int(dynamo.counters["stats"]["unique_graphs"])
