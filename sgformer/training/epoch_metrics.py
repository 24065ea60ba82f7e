"""Metrics, times and memory of one epoch of a training."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class EpochMetrics:
    """One epoch's metrics, times and memory.

    Attributes:
        epoch: Number of the epoch, from 1.
        train_loss: Mean loss of the training images, each before the step that it is part of.
        val_loss: Loss on val without label smoothing; NaN, as the other metrics on val, if the
            training diverged in this epoch.
        val_top1: Share of val images whose class has the highest logit, 0..1.
        val_top5: Share of val images whose class is among the five highest logits, 0..1.
        val_macro_f1: Mean of the classes' F1 scores on val, 0..1.
        learning_rate: Rate of the epoch's last step.
        seconds: Duration of training and validation.
        images_per_second: Training images a second.
        data_seconds: Seconds of the training half that were spent waiting for images.
        micro_batch_size: Images that a process has in memory at a time.
        peak_memory_bytes: On a GPU, the most that was allocated during the epoch; on a CPU, the
            memory that the process held after it.
        gpu_utilization: Mean share of time in which the GPU worked, 0..1; None where unknown.
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
        """Plain values by name."""
        return asdict(self)
