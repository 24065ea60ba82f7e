"""The optimizer steps of an epoch, which can be left and taken up again after any of them."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import torch

from sgformer.config import TrainConfig
from sgformer.data.image_data import Samples
from sgformer.data.loader import Batch, TimedBatches
from sgformer.data.model_input import ModelInput
from sgformer.data.plans import TrainPlan, TrainSteps
from sgformer.optimization.distributed import num_processes, rank, total
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
class PassState:
    """The measurements of an epoch's first steps: what a checkpoint within the epoch keeps.

    Attributes:
        losses: The loss of each step, summed over the images of all processes.
        seconds: Seconds that these steps took.
        data_seconds: Seconds of these that were spent waiting for images.
        utilizations: Shares of time in which the GPU worked, 0..1.
    """

    losses: tuple[float, ...] = ()
    seconds: float = 0.0
    data_seconds: float = 0.0
    utilizations: tuple[float, ...] = ()

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> Self:
        """The state that `dataclasses.asdict` turned into plain values."""
        plain: dict[str, Any] = {
            n: tuple(v) if isinstance(v, list) else v for n, v in values.items()
        }
        return cls(**plain)


class _Losses:
    """The losses of steps, each summed over this process's images; they stay on the device.

    A step whose loss is not finite in any process is skipped in all.
    """

    def __init__(
        self, most_not_finite: int, before: Sequence[float], device: torch.device
    ) -> None:
        self._most_not_finite = most_not_finite
        known = before if rank() == 0 else [0.0] * len(before)
        self._losses = list(torch.tensor(known, dtype=torch.float32, device=device))
        self._skipped: list[bool] = []  # of the first losses, as far as they were checked
        self._num_in_a_row, self._has_diverged = 0, False

    def __len__(self) -> int:
        return len(self._losses)

    def add(self, loss: torch.Tensor) -> None:
        self._losses.append(loss)

    def have_diverged(self) -> bool:
        """Whether too many losses in a row were not finite; waits for the device."""
        new = self._losses[len(self._skipped) :]
        if new:
            not_finite = total((~torch.isfinite(torch.stack(new))).float())
            for skipped in (not_finite > 0).tolist():
                self._skipped.append(skipped)
                self._num_in_a_row = self._num_in_a_row + 1 if skipped else 0
                self._has_diverged |= self._num_in_a_row >= self._most_not_finite
        return self._has_diverged

    def mean(self, batch_size: int) -> float:
        """The mean over the images of all processes, without skipped steps."""
        if self.have_diverged() or all(self._skipped):
            return math.nan
        pairs = zip(self._losses, self._skipped, strict=True)
        kept = [loss for loss, skipped in pairs if not skipped]
        return float(total(torch.stack(kept).sum())) / (len(kept) * batch_size)

    def values(self) -> tuple[float, ...]:
        """Each loss, summed over the images of all processes; every process must call this."""
        return tuple(total(torch.stack(self._losses)).tolist()) if self._losses else ()


class EpochSteps:
    """The steps of each epoch: a whole pass over the images, or `epoch_images` of them.

    Args:
        config: The config of the training.
        samples: (N, 2) positions of the training images, and labels.
    """

    def __init__(self, config: TrainConfig, samples: Samples) -> None:
        self._config, self._samples = config, samples
        self._batch_size = min(config.optimizer.batch_size, len(samples))
        self._num_a_pass = len(samples) // self._batch_size
        num_images = config.epoch_images or self._num_a_pass * self._batch_size
        self._num = (num_images + self._batch_size // 2) // self._batch_size
        self._plan: tuple[int, TrainPlan] | None = None  # of the last pass, with its number
        self._first_balanced = math.inf  # the number of the first pass of balanced fine-tuning
        if config.class_balance == "sampling":
            self._first_balanced = 1
        elif config.extension.is_used and config.extension.balanced_share:
            num_before = (1 - config.extension.balanced_share) * config.max_epochs * self._num
            self._first_balanced = 1 + round(num_before / self._num_a_pass)

    def of(self, epoch: int) -> TrainSteps:
        """The steps of an epoch, which is counted from 1."""
        steps = range((epoch - 1) * self._num, epoch * self._num)
        return TrainSteps(self._plan_of, steps, self._num_a_pass, self._batch_size)

    def _plan_of(self, number: int) -> TrainPlan:
        if self._plan is None or self._plan[0] != number:
            plan = TrainPlan(
                self._samples,
                self._batch_size,
                seed_of(self._config.seed, number),
                balanced=number >= self._first_balanced,
                rank=rank(),
                num_processes=num_processes(),
            )
            self._plan = number, plan
        return self._plan[1]


class TrainPass:
    """An epoch's optimizer steps. Between two steps, `state` tells all that a later process needs.

    Args:
        optimizer_step: The model, its optimizer, and the config of the training.
        model_input: Normalises and erases the images.
        steps: The steps of the epoch, those of `state` included.
        epoch: The number of the epoch, from 1.
        state: The steps of the epoch that were run before.

    Attributes:
        steps_left: The steps that are still to run, whose batches `run` takes.
        learning_rate: Learning rate of the last step.
        data_seconds: Seconds spent waiting for images.
    """

    def __init__(
        self,
        optimizer_step: OptimizerStep,
        model_input: ModelInput,
        steps: TrainSteps,
        epoch: int,
        state: PassState = PassState(),
    ) -> None:
        self._step, self._input, self._epoch = optimizer_step, model_input, epoch
        self._num_steps, self._batch_size = len(steps), steps.batch_size
        self.steps_left = steps.after(len(state.losses))
        self.learning_rate = self._learning_rate(steps.steps[len(state.losses) - 1])
        most = MOST_NOT_FINITE[optimizer_step.numerics.precision]
        self._losses = _Losses(most, state.losses, optimizer_step.device)
        self._seconds, self.data_seconds = state.seconds, state.data_seconds
        self._utilizations = list(state.utilizations)

    def run(self, batches: Iterator[Batch], micro_batch_size: int) -> Iterator[None]:
        """Runs the steps that are left; yields after each. Ends at once on a divergence.

        Args:
            batches: The loaded batches of `steps_left`.
            micro_batch_size: Images that this process runs through the model at a time.
        """
        self._step.begin_epoch(self._epoch)
        timed = TimedBatches(batches, self.data_seconds)
        start = time.perf_counter()
        places = zip(self.steps_left.steps, self.steps_left.places, strict=True)
        for (number, place), batch in zip(places, timed, strict=True):
            self.learning_rate = self._learning_rate(number)
            pass_seed = seed_of(self._step.config.seed, place.pass_number)
            loss = self._step.run(
                self._input(batch),
                batch.labels,
                seed=seed_of(pass_seed, "step", place.step),
                number=number + 1,
                learning_rate=self.learning_rate,
                batch_size=self._batch_size,
                micro_batch_size=micro_batch_size,
            )
            self._losses.add(loss)
            is_over = self._is_over()
            self.data_seconds = timed.seconds
            self._seconds += time.perf_counter() - start
            yield
            start = time.perf_counter()
            if is_over:
                return

    @property
    def state(self) -> PassState:
        """The measurements so far; every process of the training must ask for it."""
        return PassState(
            self._losses.values(), self._seconds, self.data_seconds, tuple(self._utilizations)
        )

    @property
    def num_steps_done(self) -> int:
        return len(self._losses)

    @property
    def seconds(self) -> float:
        return self._seconds

    @property
    def loss(self) -> float:
        """Mean loss over the images, without skipped steps; NaN if the training has diverged."""
        return self._losses.mean(self._batch_size)

    @property
    def images_per_second(self) -> float:
        """Training images a second, over all processes."""
        return len(self._losses) * self._batch_size / self._seconds

    @property
    def gpu_utilization(self) -> float | None:
        """Mean share of time in which the GPU worked, 0..1; None if unknown."""
        return float(np.mean(self._utilizations)) if self._utilizations else None

    def _is_over(self) -> bool:
        """Checks the losses, after every 20th step and the last one; whether they diverged."""
        i = len(self._losses) - 1
        is_last = i == self._num_steps - 1
        if i % STEPS_BETWEEN_CHECKS and not is_last:
            return False
        self._utilizations += gpu_utilization(self._step.device) if i or is_last else []
        return self._losses.have_diverged()

    def _learning_rate(self, step: int) -> float:
        config = self._step.config
        return learning_rate_at(step, self._num_steps, config.max_epochs, config.optimizer)
