"""The training loop, for trials and retrainings."""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import nn

from sgformer.config import TrainConfig
from sgformer.data.augmentation import eval_transform, train_transform
from sgformer.data.image_data import ImageData
from sgformer.data.loader import (
    BatchLoader,
    EvalPlan,
    ImageDataset,
    TimedBatches,
    TrainPlan,
    default_num_workers,
    largest_share,
)
from sgformer.errors import OutOfMemoryError
from sgformer.model.build import create_model
from sgformer.model.weight_files import StoredWeights
from sgformer.model.weights import start_from
from sgformer.seeding import seed_everything, seed_of
from sgformer.training.device import (
    choose_device,
    gpu_utilization,
    is_out_of_memory,
    peak_memory_bytes,
    release_memory,
    reset_peak_memory,
)
from sgformer.training.distributed import check_share, interleave, num_processes, rank, total
from sgformer.training.early_stopping import EarlyStopping
from sgformer.training.epoch_metrics import EpochMetrics
from sgformer.training.evaluation import SplitMetrics, compute_metrics, predict_logits
from sgformer.training.optimizer import learning_rate_at
from sgformer.training.optimizer_step import OptimizerStep

EndReason = Literal["completed", "early_stopped", "diverged"]
# Steps from one check that the loss is finite to the next; each check waits for the GPU.
STEPS_BETWEEN_CHECKS: Final = 20


@dataclass(frozen=True)
class _TrainPass:
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


class Trainer:
    """Trains one configuration on the images of one folder, epoch by epoch.

    All randomness is derived from the seed, the epoch, the step and the image, so a resumed
    training gives the same result as an uninterrupted one. If torch.distributed is initialised,
    its processes train one model: each process makes a Trainer and runs every epoch.

    Args:
        config: The configuration.
        data: The images.
        weights: A copy of the weights to start from; None: they are read from the config's source.

    Attributes:
        config: The configuration.
        data: The images.
        device: The device of the training.
        weights_loaded: The weights that the training began with, in words; None: new ones.
        early_stopping: The best epoch so far, and whether the training should stop.
        micro_batch_size: Images that a process runs through the model at a time; halved when
            memory runs out.
        end_reason: Why the training ended; None while it goes on.
        history: Metrics of all epochs so far, epochs before a resume included.

    Raises:
        ConfigError: `train.device` is cuda and this machine has no usable GPU, or there are too
            few images for the number of processes.
    """

    def __init__(
        self, config: TrainConfig, data: ImageData, weights: StoredWeights | None = None
    ) -> None:
        config = config.resolved()
        self._weights = weights
        self.weights_loaded: str | None = None
        self.config, self.data = config, data
        self.device = choose_device(config)
        self._samples = data.samples("train")
        check_share(config.optimizer.batch_size, len(self._samples), len(data.samples("val")))
        seed_everything(config.seed)
        model = create_model(config, len(data.classes)).to(self.device)
        if config.channels_last is True:
            model = model.to(memory_format=torch.channels_last)
        self._step = OptimizerStep(model, len(data.classes), config, self._samples, self.device)
        self.early_stopping = EarlyStopping(
            config.early_stopping.model_copy(update={"metric": config.metric})
        )
        share = largest_share(config.optimizer.batch_size, len(self._samples), num_processes())
        self.micro_batch_size = min(config.optimizer.micro_batch_size or share, share)
        self.history: list[EpochMetrics] = []
        self.end_reason: EndReason | None = None
        self._num_epochs_run = 0

    @property
    def model(self) -> nn.Module:
        """The evaluated and delivered model; with `ema_decay`, the one with averaged weights."""
        return self._step.model if self._step.ema is None else self._step.ema.module

    @property
    def num_epochs_done(self) -> int:
        return len(self.history)

    @property
    def num_parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    @property
    def is_compiled(self) -> bool | None:
        """Whether steps of this process run compiled; None without `compile`, or before a step."""
        if not self.config.compile or self._num_epochs_run == 0:
            return None
        return self._step.is_compiled

    @property
    def gpu_name(self) -> str | None:
        """The GPU's product name, such as 'NVIDIA H100'; None on a CPU."""
        if self.device.type != "cuda":
            return None
        return str(torch.cuda.get_device_name(self.device))

    def epochs(self) -> Iterator[EpochMetrics]:
        """Trains, and yields each epoch's metrics, until the training ends.

        The training ends after `max_epochs`, by early stopping, or when a loss is not finite.

        Raises:
            OutOfMemoryError: Not even one image at a time fits; or, with several processes, a
                micro-batch does not fit: the caller must restart all processes with a smaller
                micro-batch.
        """
        while self.end_reason is None:
            yield self._run_epoch(self.num_epochs_done + 1)

    def evaluate(self, split: str) -> SplitMetrics:
        """Metrics of `model` on a split."""
        return compute_metrics(*self._predict(split), self.data.classes)

    def description(self) -> dict[str, Any]:
        """Config, classes and epoch: together with the weights they rebuild the model."""
        return {
            "config": self.config.model_dump(mode="json"),
            "classes": list(self.data.classes),
            "epoch": self.num_epochs_done,
        }

    @property
    def fingerprint(self) -> str:
        """A hash of the settings and of the weights that determine the result."""
        return self.config.fingerprint(None if self._weights is None else self._weights.digest)

    def state_dict(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """The whole state of the training: tensors, and metadata of JSON's types."""
        tensors, scaler = self._step.state_dict()
        metadata = {
            "fingerprint": self.fingerprint,
            "weights_loaded": self.weights_loaded,
            "history": [metrics.as_row() for metrics in self.history],
            "early_stopping": self.early_stopping.state_dict(),
            "end_reason": self.end_reason,
            "micro_batch_size": self.micro_batch_size,
            "scaler": scaler,
            "images": self.images_trained_on(),
        }
        return tensors, metadata

    def images_trained_on(self) -> dict[str, Any]:
        """Classes, and a hash of the images' names and sizes; a checkpoint is bound to both."""
        return {"classes": list(self.data.classes), "content": self.data.images.id.content}

    def load_state_dict(
        self, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]
    ) -> None:
        """Restores a state that `state_dict` returned."""
        self._step.load_state_dict(dict(tensors), metadata["scaler"])
        self.weights_loaded = metadata.get("weights_loaded")
        self.history = [EpochMetrics(**row) for row in metadata["history"]]
        self.early_stopping.load_state_dict(metadata["early_stopping"])
        self.end_reason = metadata["end_reason"]
        self.micro_batch_size = min(self.micro_batch_size, metadata["micro_batch_size"])

    @cached_property
    def _loader(self) -> BatchLoader:
        has_gpu = self.device.type == "cuda"
        num_workers = self.config.data.num_workers
        if num_workers is None:
            num_workers = default_num_workers(torch.get_num_threads(), has_gpu=has_gpu)
        dataset = ImageDataset(
            self.data.images,
            eval_transform(self.config.data),
            train_transform(self.config.data, self.config.augmentation),
        )
        return BatchLoader(dataset, num_workers, pin_memory=has_gpu)

    def _run_epoch(self, epoch: int) -> EpochMetrics:
        """Runs an epoch; if memory runs out, restarts the epoch with half the micro-batch."""
        if epoch == 1:
            self._start_from_weights()
        before = self._step.snapshot()
        while (metrics := self._try_epoch(epoch)) is None:
            release_memory()
            if self.micro_batch_size == 1:
                raise OutOfMemoryError(
                    f"not even one image at a time fits into the memory of {self.device}: "
                    f"{self.config.model.name} at {self.config.data.image_size} pixels "
                    "(train.model.name, train.data.image_size, resources.gpus_per_trial)"
                )
            self.micro_batch_size = (self.micro_batch_size + 1) // 2
            self._step.load_state_dict(*before)
        self._num_epochs_run += 1
        self.history.append(metrics)
        self.early_stopping.update(epoch, metrics.value(self.config.metric))
        self.end_reason = self._end_reason(epoch, diverged=math.isnan(metrics.val_loss))
        return metrics

    def _start_from_weights(self) -> None:
        """Loads the weights to start from; the EMA takes the model's weights at its first step."""
        model = self._step.model
        report = start_from(model, self.config.model, self._weights, self.data.classes)
        self.weights_loaded = None if report is None else str(report)

    def _try_epoch(self, epoch: int) -> EpochMetrics | None:
        """Runs an epoch; returns None if memory ran out."""
        try:
            return self._train_and_validate(epoch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if num_processes() > 1:  # the other processes wait: all must be restarted
                refusal = OutOfMemoryError(
                    f"a micro-batch of {self.micro_batch_size} does not fit into the memory of "
                    f"{self.device}"
                )
                refusal.micro_batch_size = self.micro_batch_size
                raise refusal from None
        # Outside the handler, where the error, which keeps the step's tensors alive, is gone.
        return None

    def _train_and_validate(self, epoch: int) -> EpochMetrics:
        start = time.perf_counter()
        reset_peak_memory(self.device)
        train = self._train_epoch(epoch)
        logits, labels = self._predict("val")
        diverged = not (math.isfinite(train.loss) and np.isfinite(logits).all())
        val = None if diverged else compute_metrics(logits, labels, self.data.classes)
        return EpochMetrics(
            epoch=epoch,
            train_loss=train.loss,
            val_loss=val.loss if val else math.nan,
            val_top1=val.top1 if val else math.nan,
            val_top5=val.top5 if val else math.nan,
            val_macro_f1=val.macro_f1 if val else math.nan,
            learning_rate=train.learning_rate,
            seconds=time.perf_counter() - start,
            images_per_second=train.images_per_second,
            data_seconds=train.data_seconds,
            micro_batch_size=self.micro_batch_size,
            peak_memory_bytes=peak_memory_bytes(self.device),
            gpu_utilization=train.gpu_utilization,
        )

    def _end_reason(self, epoch: int, *, diverged: bool) -> EndReason | None:
        if diverged:
            return "diverged"
        if epoch >= self.config.max_epochs:
            return "completed"
        return "early_stopped" if self.early_stopping.should_stop else None

    def _train_epoch(self, epoch: int) -> _TrainPass:
        config, seed = self.config, seed_of(self.config.seed, epoch)
        plan = TrainPlan(
            self._samples,
            config.optimizer.batch_size,
            seed,
            balanced=config.class_balance == "sampling",
            rank=rank(),
            num_processes=num_processes(),
        )
        self._step.begin_epoch(epoch)
        losses: list[torch.Tensor] = []
        utilizations: list[float] = []
        learning_rate, start = 0.0, time.perf_counter()
        batches = TimedBatches(self._loader.batches(plan))
        for i, (images, labels) in enumerate(batches):
            step = (epoch - 1) * len(plan) + i
            learning_rate = learning_rate_at(step, len(plan), config.max_epochs, config.optimizer)
            loss = self._step.run(
                images,
                labels,
                seed=seed_of(seed, "step", i),
                number=step + 1,
                learning_rate=learning_rate,
                batch_size=plan.batch_size,
                micro_batch_size=self.micro_batch_size,
            )
            losses.append(loss)
            if i % STEPS_BETWEEN_CHECKS == 0:
                if i:
                    utilizations += gpu_utilization(self.device)
                if not torch.isfinite(total(loss)):
                    break
        utilizations += gpu_utilization(self.device)
        num_images = len(losses) * plan.batch_size
        mean_loss = float(total(torch.stack(losses).sum())) / num_images
        return _TrainPass(
            mean_loss,
            learning_rate,
            num_images / (time.perf_counter() - start),
            batches.seconds,
            float(np.mean(utilizations)) if utilizations else None,
        )

    def _predict(self, split: str) -> tuple[Any, Any]:
        """Logits (N, classes) and labels (N,) of the whole split in order, from all processes."""
        samples = self.data.samples(split)
        plan = EvalPlan(samples, self.micro_batch_size, rank(), num_processes())
        logits, labels = predict_logits(self.model, self._loader.batches(plan), self.device)
        return interleave(logits, labels, len(samples), self.device)
