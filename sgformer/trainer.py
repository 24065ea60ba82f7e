"""The only training loop: every trial and the retraining of the winner use it."""

import math
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import timm
import torch
import torch.nn.functional as F

from sgformer.augmentation import eval_transform, train_transform
from sgformer.config import TrainConfig
from sgformer.data import ImageDataset, create_loader
from sgformer.decoded_images import ImageData
from sgformer.early_stopping import EarlyStopping
from sgformer.errors import ConfigError
from sgformer.evaluation import SplitMetrics, compute_metrics, predict_logits
from sgformer.model import SGFormer
from sgformer.optimizer import create_optimizer, learning_rate_at

EndReason = Literal["completed", "early_stopped", "diverged"]
STEPS_BETWEEN_LOSS_CHECKS = 20


@dataclass(frozen=True)
class EpochMetrics:
    """One epoch, counted from 1; the metrics of a diverged one are NaN."""

    epoch: int
    train_loss: float
    val_loss: float
    val_top1: float
    val_top5: float
    val_macro_f1: float
    learning_rate: float
    seconds: float
    images_per_second: float

    def value(self, metric: str) -> float:
        """The value of a metric by its name, such as `val_top1`."""
        return float(getattr(self, metric))

    def as_row(self) -> dict[str, Any]:
        """Plain values by name."""
        return asdict(self)


class Trainer:
    """Trains one configuration on one folder, an epoch at a time.

    Each epoch's randomness is derived from the seed and the epoch's number, so a training
    resumed from a checkpoint goes on just as it would have.

    Attributes:
        end_reason: Why `epochs` ended; None while there is more to train.
        history: All epochs so far, those of before a resume included.
    """

    def __init__(self, config: TrainConfig, data: ImageData) -> None:
        self.config = config
        self.data = data
        self.device = choose_device(config)
        seed_everything(config.seed)
        self.model = create_model(config, len(data.classes)).to(self.device)
        self.optimizer = create_optimizer(self.model, config.optimizer)
        self.early_stopping = EarlyStopping(
            config.early_stopping.model_copy(update={"metric": config.metric})
        )
        self.history: list[EpochMetrics] = []
        self.end_reason: EndReason | None = None

    @property
    def num_epochs_done(self) -> int:
        return len(self.history)

    @property
    def num_parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    def epochs(self) -> Iterator[EpochMetrics]:
        """Trains one epoch a step until the length is reached, early stopping, or divergence."""
        while self.end_reason is None:
            yield self._run_epoch(self.num_epochs_done + 1)

    def evaluate(self, split: str) -> SplitMetrics:
        """The model's metrics on a split as it is now."""
        return compute_metrics(*self._predict(split), self.data.classes)

    def description(self) -> dict[str, Any]:
        """What a reader of the weights needs to rebuild the model and its preprocessing."""
        return {
            "config": self.config.model_dump(mode="json"),
            "classes": list(self.data.classes),
            "epoch": self.num_epochs_done,
        }

    def state_dict(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Tensors and JSON metadata that `load_state_dict` continues from."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
        metadata = {
            "fingerprint": self.config.fingerprint(),
            "history": [metrics.as_row() for metrics in self.history],
            "early_stopping": self.early_stopping.state_dict(),
            "end_reason": self.end_reason,
        }
        return tensors, metadata

    def load_state_dict(
        self, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]
    ) -> None:
        model, optimizer = {}, self.optimizer.state_dict()
        for name, value in tensors.items():
            part, _, rest = name.partition(".")
            if part == "model":
                model[rest] = value
            else:
                index, _, key = rest.partition(".")
                optimizer["state"].setdefault(int(index), {})[key] = value
        self.model.load_state_dict(model)
        self.optimizer.load_state_dict(optimizer)
        self.history = [EpochMetrics(**row) for row in metadata["history"]]
        self.early_stopping.load_state_dict(metadata["early_stopping"])
        self.end_reason = metadata["end_reason"]

    def _run_epoch(self, epoch: int) -> EpochMetrics:
        start = time.perf_counter()
        train_loss, learning_rate, num_images = self._train_epoch(epoch)
        train_seconds = time.perf_counter() - start
        logits, labels = self._predict("val")
        diverged = not (math.isfinite(train_loss) and np.isfinite(logits).all())
        val = None if diverged else compute_metrics(logits, labels, self.data.classes)
        metrics = EpochMetrics(
            epoch=epoch,
            train_loss=train_loss,
            val_loss=val.loss if val else math.nan,
            val_top1=val.top1 if val else math.nan,
            val_top5=val.top5 if val else math.nan,
            val_macro_f1=val.macro_f1 if val else math.nan,
            learning_rate=learning_rate,
            seconds=time.perf_counter() - start,
            images_per_second=num_images / train_seconds,
        )
        self.history.append(metrics)
        self.early_stopping.update(epoch, metrics.value(self.config.metric))
        self.end_reason = self._end_reason(epoch, diverged=diverged)
        return metrics

    def _end_reason(self, epoch: int, *, diverged: bool) -> EndReason | None:
        if diverged:
            return "diverged"
        if epoch >= self.config.max_epochs:
            return "completed"
        return "early_stopped" if self.early_stopping.should_stop else None

    def _train_epoch(self, epoch: int) -> tuple[float, float, int]:
        """Mean loss (NaN or infinite as soon as it is seen), last learning rate, images."""
        config, seed = self.config, self.config.seed * 100_003 + epoch
        seed_everything(seed)
        transform = train_transform(config.data, config.augmentation)
        loader = create_loader(
            ImageDataset(self.data, "train", transform),
            config.optimizer.batch_size,
            config.data.num_workers,
            shuffle_seed=seed,
            pin_memory=self.device.type == "cuda",
        )
        self.model.train()
        losses: list[torch.Tensor] = []
        num_images, learning_rate = 0, 0.0
        for i, (images, labels) in enumerate(loader):
            step = (epoch - 1) * len(loader) + i
            learning_rate = learning_rate_at(
                step, len(loader), config.max_epochs, config.optimizer
            )
            losses.append(self._step(images, labels, learning_rate))
            num_images += len(images)
            if i % STEPS_BETWEEN_LOSS_CHECKS == 0 and not torch.isfinite(losses[-1]):
                break
        return float(torch.stack(losses).mean()), learning_rate, num_images

    def _step(
        self, images: torch.Tensor, labels: torch.Tensor, learning_rate: float
    ) -> torch.Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        logits = self.model(images.to(self.device, non_blocking=True))
        loss = F.cross_entropy(
            logits, labels.to(self.device), label_smoothing=self.config.label_smoothing
        )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def _predict(self, split: str) -> tuple[Any, Any]:
        config = self.config
        dataset = ImageDataset(self.data, split, eval_transform(config.data))
        loader = create_loader(
            dataset,
            config.optimizer.batch_size,
            config.data.num_workers,
            pin_memory=self.device.type == "cuda",
        )
        return predict_logits(self.model, loader, self.device)


def create_model(config: TrainConfig, num_classes: int) -> SGFormer:
    """The configured model, untrained."""
    model = timm.create_model(
        config.model.name,
        num_classes=num_classes,
        img_size=config.data.image_size,
        **config.model.model_dump(exclude={"name"}),
    )
    assert isinstance(model, SGFormer)
    return model


def choose_device(config: TrainConfig) -> torch.device:
    """The configured device; `auto` takes a GPU where there is one.

    Raises:
        ConfigError: CUDA is asked for and not available.
    """
    available = torch.cuda.is_available()
    if config.device == "cuda" and not available:
        raise ConfigError("train.device: cuda is asked for, and this machine has no usable GPU")
    return torch.device("cuda" if available and config.device != "cpu" else "cpu")


def seed_everything(seed: int) -> None:
    """Seeds every generator that a model, timm's transforms or a loader draws from."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)
