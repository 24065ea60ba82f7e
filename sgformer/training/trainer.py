"""The training loop, for trials and retrainings."""

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any, Literal

import torch
from torch import nn

from sgformer.config import TrainConfig
from sgformer.data.image_data import ImageData, Samples, stratified_part
from sgformer.data.loader import BatchLoader, training_loader
from sgformer.data.model_input import ModelInput
from sgformer.data.plans import EvalPlan
from sgformer.data.replay import train_samples
from sgformer.errors import ConfigError
from sgformer.model.build import create_model
from sgformer.model.fusion import set_scaling
from sgformer.model.weight_files import StoredWeights
from sgformer.model.weights import start_from
from sgformer.optimization.batch_norm import StatisticsImages, synchronised
from sgformer.optimization.distributed import num_processes, rank
from sgformer.optimization.micro_batches import MicroBatches, check_batches
from sgformer.optimization.numerics import checkpoint_gradients
from sgformer.optimization.optimizer_step import OptimizerStep, State
from sgformer.seeding import seed_everything
from sgformer.training.counts import Counts, Scores
from sgformer.training.device import (
    choose_device,
    is_out_of_memory,
    peak_memory_bytes,
    release_memory,
    reset_peak_memory,
)
from sgformer.training.early_stopping import EarlyStopping
from sgformer.training.epoch_metrics import EpochMetrics, Stopwatch, result_of
from sgformer.training.evaluation import predicted_logits
from sgformer.training.teacher import load_teacher
from sgformer.training.train_pass import EpochSteps, PassState, TrainPass

EndReason = Literal["completed", "early_stopped", "diverged"]


class Trainer:
    """Trains one configuration on the images of one folder, epoch by epoch.

    All randomness is derived from the seed, the epoch, the step and the image, so a resumed
    training gives the same result as an uninterrupted one. If torch.distributed is initialised,
    its processes train one model: each process makes a Trainer and runs every epoch.

    Args:
        config: The configuration.
        data: The images.
        weights: A copy of the weights to start from; None: they are read from the config's source.
        micro_batch_size: The micro-batch to begin with if the config's is larger.
        teachers: Copies of the teacher's checkpoints; empty: the config's own paths are read.

    Attributes:
        config: The configuration.
        data: The images.
        device: The device of the training.
        weights_loaded: The weights that the training began with, in words; None: new ones.
        numerics: The number type and memory layout of the training.
        early_stopping: The best epoch so far, and whether the training should stop.
        micro_batches: The size of micro-batches, which is halved when memory runs out.
        end_reason: Why the training ended; None while it goes on.
        history: Metrics of all epochs so far, epochs before a resume included.

    Raises:
        ConfigError: `train.device` is cuda and this machine has no usable GPU, or there are too
            few images for the number of processes.
    """

    def __init__(
        self,
        config: TrainConfig,
        data: ImageData,
        weights: StoredWeights | None = None,
        micro_batch_size: int | None = None,
        teachers: Sequence[StoredWeights] = (),
    ) -> None:
        config = _with_features(config.resolved(), data)
        self._weights, self._teachers = weights, teachers
        self.weights_loaded: str | None = None
        self.config, self.data = config, data
        self.device = choose_device(config)
        self._samples = train_samples(data, config.extension)
        self._val_samples = stratified_part(
            data.samples("val"), config.eval_images, config.data.val_seed
        )
        check_batches(config, data)
        seed_everything(config.seed)
        num_classes = len(data.classes)
        model = synchronised(create_model(config, num_classes).to(self.device))
        _set_scaling(model, data)
        if config.grad_checkpointing:
            checkpoint_gradients(model, config.model.name)
        teacher = load_teacher(config, teachers, data.classes, self.device)
        self._step = OptimizerStep(model, num_classes, config, self._samples, self.device, teacher)
        self.numerics = self._step.numerics
        self._input = ModelInput(
            config.data.preprocessing, self.device, self.numerics.memory_format, data.features
        )
        self.early_stopping = EarlyStopping(
            config.early_stopping.model_copy(update={"metric": config.metric})
        )
        self.micro_batches = MicroBatches(
            config, len(self._samples), self.device, micro_batch_size
        )
        self.history: list[EpochMetrics] = []
        self.end_reason: EndReason | None = None
        self._num_epochs_run = 0
        self._steps = EpochSteps(config, self._samples)
        self._pass: TrainPass | None = None  # the steps of the epoch under way
        # From where the epoch under way is restarted: its steps before a resume, and the state.
        self._begun = PassState()
        self._before: State | None = None
        self._spare: dict[str, torch.Tensor] = {}  # a former copy, whose memory is used again

    @property
    def model(self) -> nn.Module:
        """The evaluated and delivered model; with `ema_decay`, the one with averaged weights."""
        return self._step.model if self._step.ema is None else self._step.ema.module

    @property
    def prefix_of_model(self) -> str:
        """What the names of `model`'s tensors begin with in `state_dict`."""
        return "model." if self._step.ema is None else "ema."

    @property
    def num_epochs_done(self) -> int:
        return len(self.history)

    @property
    def num_steps_done(self) -> int:
        """Steps of the epoch under way; 0 between two epochs."""
        return self._pass.num_steps_done if self._pass else self.num_steps_resumed

    @property
    def num_steps_resumed(self) -> int:
        """Steps of the epoch under way that an earlier process has done."""
        return len(self._begun.losses)

    @property
    def has_only_val_left(self) -> bool:
        """Whether an earlier process has done all steps of the epoch under way."""
        return self.num_steps_resumed == len(self._steps.of(self.num_epochs_done + 1))

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
    def loading_note(self) -> str | None:
        """What the user should know of how images are loaded; None: nothing."""
        return self._loader.note

    @property
    def statistics_images(self) -> StatisticsImages | None:
        """Of how many images BatchNorm takes its statistics; None without BatchNorm."""
        return self.micro_batches.statistics_images(self.model)

    def epochs(self) -> Iterator[EpochMetrics]:
        """Trains, and yields each epoch's metrics, until the training ends; see `parts`."""
        return (metrics for metrics in self.parts() if metrics is not None)

    def parts(self) -> Iterator[EpochMetrics | None]:
        """Trains in small parts, a step or a batch of val, until the training ends.

        Yields an epoch's metrics at its end, and None after the parts within it. After each part
        `state_dict` tells the whole state, and the training may be left.

        The training ends after `max_epochs`, by early stopping, or when a loss is not finite.

        Raises:
            OutOfMemoryError: Not even the smallest micro-batch fits; or, with several processes, a
                larger one does not: the caller must restart all processes with a smaller
                micro-batch.
        """
        while self.end_reason is None:
            yield from self._run_epoch(self.num_epochs_done + 1)

    def evaluate(self, split: str) -> Scores:
        """Metrics of `model` on a whole split, computed in the training's precision.

        Each process evaluates a share of the images, and gets the metrics of all.
        """
        return result_of(self._scores(self.data.samples(split)))

    def description(self) -> dict[str, Any]:
        """Config, classes, epoch and images: with the weights they rebuild the model."""
        return {
            "config": self.config.model_dump(mode="json"),
            "classes": list(self.data.classes),
            "epoch": self.num_epochs_done,
            **self.data.trained_images.as_metadata(),
            **({} if self.data.features is None else self.data.features.columns.as_metadata()),
        }

    @property
    def fingerprint(self) -> str:
        """A hash of the settings and of the weights that determine the result."""
        weights = None if self._weights is None else self._weights.digest
        features = None if self.data.features is None else self.data.features.digest
        return self.config.fingerprint(weights, [one.digest for one in self._teachers], features)

    def state_dict(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """The whole state of the training: tensors, and metadata of JSON's types."""
        return self._described(*self._step.state_dict())

    def snapshot(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """`state_dict` after an epoch, in CPU memory that changes with the next snapshot only.

        There is one such copy: the next epoch is restarted from it if memory runs out.
        """
        assert self._pass is None, "an epoch is under way"
        self._before = self._before or self._step.snapshot(self._spare)
        return self._described(*self._before)

    def _described(
        self, tensors: dict[str, torch.Tensor], scaler: dict[str, Any]
    ) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        metadata = {
            "fingerprint": self.fingerprint,
            "weights_loaded": self.weights_loaded,
            "history": [metrics.as_row() for metrics in self.history],
            "early_stopping": self.early_stopping.state_dict(),
            "end_reason": self.end_reason,
            "micro_batch_size": self.micro_batches.size,
            "scaler": scaler,
            "images": self.images_trained_on(),
        }
        if self._pass is not None:
            metadata["within_epoch"] = asdict(self._pass.state)
        return tensors, metadata

    def images_trained_on(self) -> dict[str, Any]:
        """Classes, and hashes of the images and any features; a checkpoint is bound to them."""
        data = self.data
        features = {} if data.features is None else {"features": data.features.digest}
        return {"classes": list(data.classes), "content": data.images.id.content, **features}

    def load_state_dict(
        self, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]
    ) -> None:
        """Restores a state that `state_dict` returned."""
        self._step.load_state_dict(dict(tensors), metadata["scaler"])
        self.weights_loaded = metadata.get("weights_loaded")
        self.history = [EpochMetrics(**row) for row in metadata["history"]]
        self.early_stopping.load_state_dict(metadata["early_stopping"])
        self.end_reason = metadata["end_reason"]
        self.micro_batches.size = min(self.micro_batches.size, metadata["micro_batch_size"])
        self._begun = PassState.from_values(metadata.get("within_epoch", {}))
        self._pass = self._before = None

    @cached_property
    def _loader(self) -> BatchLoader:
        batch_bytes = self.micro_batches.largest_share * 3 * self.config.data.image_size**2
        return training_loader(self.data.images, self.config, self.device, batch_bytes)

    def _run_epoch(self, epoch: int) -> Iterator[EpochMetrics | None]:
        """Runs an epoch, anew with half the micro-batch if memory runs out."""
        if epoch == 1 and not self._begun.losses:
            self._start_from_weights()
        self._before = self._before or self._step.snapshot(self._spare)
        metrics = yield from self._try_epoch(epoch)
        while metrics is None:
            release_memory()
            self.micro_batches.halve()
            metrics = yield from self._try_epoch(epoch, self._before)
        self._spare = self._before[0]
        self._begun, self._pass, self._before = PassState(), None, None
        self._num_epochs_run += 1
        self.history.append(metrics)
        self.early_stopping.update(epoch, metrics.value(self.config.metric))
        self.end_reason = self._end_reason(epoch, diverged=math.isnan(metrics.val_loss))
        yield metrics

    def _start_from_weights(self) -> None:
        """Loads the weights to start from; the EMA takes the model's weights at its first step."""
        model = self._step.model
        report = start_from(
            model, self.config.model, self._weights, self.data.classes,
            extends=self.config.extension.is_used,
        )  # fmt: skip
        _set_scaling(model, self.data)  # weights of a fused model have that of another table
        self.weights_loaded = None if report is None else str(report)

    def _try_epoch(
        self, epoch: int, before: State | None = None
    ) -> Generator[None, None, EpochMetrics | None]:
        """Runs an epoch, from the state before if it is given; returns None if memory ran out."""
        try:
            if before is not None:
                self._step.load_state_dict(*before)
            return (yield from self._train_and_validate(epoch))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside the handler, where the error, which keeps the step's tensors alive, is gone.
        return None

    def _train_and_validate(self, epoch: int) -> Generator[None, None, EpochMetrics]:
        reset_peak_memory(self.device)
        steps = self._steps.of(epoch)
        self._pass = train = TrainPass(self._step, self._input, steps, epoch, self._begun)
        yield from train.run(self._loader.batches(train.steps_left), self.micro_batches.size)
        loss, stopwatch, val = train.loss, Stopwatch(), None
        if math.isfinite(loss):
            val = yield from stopwatch.timed(self._scores(self._val_samples))
        if val is not None and not math.isfinite(val.loss):
            val = None
        return EpochMetrics(
            epoch=epoch,
            train_loss=loss,
            val_loss=val.loss if val else math.nan,
            val_top1=val.top1 if val else math.nan,
            val_top5=val.top5 if val else math.nan,
            val_macro_f1=val.macro_f1 if val else math.nan,
            learning_rate=train.learning_rate,
            seconds=train.seconds + stopwatch.seconds,
            images_per_second=train.images_per_second,
            data_seconds=train.data_seconds,
            micro_batch_size=self.micro_batches.size,
            peak_memory_bytes=peak_memory_bytes(self.device),
            gpu_utilization=train.gpu_utilization,
        )

    def _end_reason(self, epoch: int, *, diverged: bool) -> EndReason | None:
        if diverged:
            return "diverged"
        if epoch >= self.config.max_epochs:
            return "completed"
        return "early_stopped" if self.early_stopping.should_stop else None

    def _scores(self, samples: Samples) -> Generator[None, None, Scores]:
        """Returns the metrics on the samples; yields after each batch of one process."""
        plan = EvalPlan(samples, self.micro_batches.size, rank(), num_processes())
        batches = ((self._input(batch), batch.labels) for batch in self._loader.batches(plan))
        counts = Counts(len(self.data.classes), self.device)
        for logits, labels in predicted_logits(self.model, batches, self.numerics):
            counts.add(logits, labels)
            if num_processes() == 1:
                yield
        counts.add_other_processes()
        return counts.scores()


def _with_features(config: TrainConfig, data: ImageData) -> TrainConfig:
    """The config, whose model takes as many numbers beside an image as the data have."""
    if (config.data.features is None) != (data.features is None):
        raise ConfigError(
            f"train.data.features: is {config.data.features}, but the images were read "
            f"{'without' if data.features is None else 'with'} features"
        )
    features = data.features
    return config.with_num_features(None if features is None else features.columns.size)


def _set_scaling(model: nn.Module, data: ImageData) -> None:
    """Lets a model standardise features as the train images ask for."""
    if data.features is not None:
        scaling = data.features.scaling
        set_scaling(model, torch.from_numpy(scaling.mean), torch.from_numpy(scaling.std))
