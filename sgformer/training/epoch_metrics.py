"""Metrics, times and memory of one epoch of a training."""

import time
from collections.abc import Generator
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

Result = TypeVar("Result")


@dataclass(frozen=True)
class EpochMetrics:
    """One epoch's metrics, times and memory.

    Attributes:
        epoch: Number of the epoch, from 1.
        train_loss: Mean training loss over the images, each computed before the image's
            optimizer step.
        val_loss: Mean cross-entropy on val in nats, without label smoothing. If the training
            diverged in this epoch, all val metrics are NaN.
        val_top1: Share of val images whose class has the highest logit, 0..1.
        val_top5: Share of val images whose class is among the five highest logits, 0..1.
        val_macro_f1: Mean of the classes' F1 scores on val, 0..1.
        learning_rate: Learning rate of the epoch's last optimizer step.
        seconds: Duration of training and validation.
        images_per_second: Training images a second, over all processes.
        data_seconds: Seconds that the training, without validation, waited for images.
        micro_batch_size: Images that a process runs through the model at a time.
        peak_memory_bytes: On a GPU, the largest memory allocated during the epoch; on a CPU, the
            process's resident memory after the epoch.
        gpu_utilization: Mean share of time in which the GPU worked, 0..1; None if unknown.
    """

    epoch: int
    train_loss: float
    val_loss: float
    val_top1: float
    val_top5: float
    val_macro_f1: float
    learning_rate: float
    seconds: float
    images_per_second: float
    data_seconds: float
    micro_batch_size: int
    peak_memory_bytes: int
    gpu_utilization: float | None = None

    def value(self, metric: str) -> float:
        """The value of a metric by its name, such as `val_top1`."""
        return float(getattr(self, metric))

    def as_row(self) -> dict[str, Any]:
        """The values by name, of JSON's types."""
        return asdict(self)


class Stopwatch:
    """Measures the seconds in which a generator runs, not those in which it waits to go on.

    Attributes:
        seconds: The seconds so far.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, parts: Generator[None, None, Result]) -> Generator[None, None, Result]:
        """Runs a generator's parts, and returns what it returns."""
        while True:
            start = time.perf_counter()
            try:
                next(parts)
            except StopIteration as end:
                result: Result = end.value
                return result
            finally:
                self.seconds += time.perf_counter() - start
            yield


def result_of(parts: Generator[None, None, Result]) -> Result:
    """Runs a generator to its end; returns what it returns."""
    while True:
        try:
            next(parts)
        except StopIteration as end:
            result: Result = end.value
            return result
