"""Diagnosis of a training from its learning curves and counters: faults and remedies."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sgformer.config import TrainConfig, maximises
from sgformer.optimization.batch_norm import StatisticsImages
from sgformer.training.epoch_metrics import EpochMetrics

# The limits from which on a measure becomes a finding.
MIN_EPOCHS: Final = 6  # a shorter curve shows no trend
OSCILLATION_SHARE: Final = 0.3  # least share of epochs in which the training loss rose
OSCILLATION_SIZE: Final = 0.05  # least mean rise, as a fraction of the curve's range
OSCILLATION_RANGE: Final = 0.05  # least range of the curve, as a fraction of the first loss
OVERFIT_RISE: Final = 1.1  # least last validation loss, as a multiple of the lowest
OVERFIT_EPOCHS: Final = 3  # least number of epochs since the lowest validation loss
UNDERFIT_PROGRESS: Final = 0.5  # progress (0: guessing's loss, 1: lowest loss) that is too little
PLATEAU_GAIN: Final = 0.05  # most gain in the second half, as a fraction of the whole gain
PLATEAU_PROGRESS: Final = 0.9  # from this progress on little is left to gain: no plateau
GPU_UNDER_USED: Final = 0.6  # mean share of time in which the GPU works
# Fewer images give BatchNorm statistics that are too noisy to be trained on. Source: Wu and He,
# Group Normalization, 2018, figure 1: the error of a ResNet-50 rises below 8 images.
FEW_IMAGES: Final = 8
INPUT_BOUND: Final = 0.2  # least share of an epoch that is spent waiting for images


@dataclass(frozen=True)
class Finding:
    """One fault of a training.

    Attributes:
        tag: Name of the fault, such as 'overfits'.
        evidence: The numbers that show the fault.
        remedy: Settings that may help.
    """

    tag: str
    evidence: str
    remedy: str


def diagnose(
    history: Sequence[EpochMetrics],
    config: TrainConfig,
    num_classes: int,
    end_reason: str | None,
    *,
    has_gpu: bool = False,
    statistics: StatisticsImages | None = None,
) -> tuple[Finding, ...]:
    """Findings about a training; empty if nothing is wrong.

    Underfitting and plateaus are looked for only if the training ended by itself: a training that
    a scheduler stopped (`end_reason` None) may have been too short for a good result.
    """
    if end_reason == "diverged":
        found: list[Finding | None] = [_diverged(history)]
    else:
        found = [_oscillates(history) or _overfits(history)]
        if end_reason is not None and found == [None]:
            last = history[-1]
            train = _progress(last.train_loss, num_classes, config.label_smoothing)
            val = _progress(last.val_loss, num_classes)
            found.append(_underfits(history, max(train, val)) or _plateaued(history, config, val))
    found.append(_gpu_under_used(history, has_gpu=has_gpu))
    found.append(_few_statistics(statistics))
    return tuple(finding for finding in found if finding is not None)


def _diverged(history: Sequence[EpochMetrics]) -> Finding:
    return Finding(
        "diverged",
        f"the loss was not finite in epoch {history[-1].epoch}",
        "lower optimizer.learning_rate, warm up longer, or set optimizer.max_grad_norm",
    )


def _oscillates(history: Sequence[EpochMetrics]) -> Finding | None:
    losses = [metrics.train_loss for metrics in history]
    if len(losses) < MIN_EPOCHS:
        return None
    rises = [max(0.0, after - before) for before, after in itertools.pairwise(losses)]
    num_rises = sum(rise > 0 for rise in rises)
    span = max(losses) - min(losses)
    if (
        num_rises < OSCILLATION_SHARE * len(rises)
        or sum(rises) < OSCILLATION_SIZE * span * num_rises
        or span < OSCILLATION_RANGE * losses[0]
    ):
        return None
    return Finding(
        "loss oscillates",
        f"the training loss rose in {num_rises} of {len(rises)} epochs, by "
        f"{sum(rises) / num_rises:.3g} on average",
        "lower optimizer.learning_rate, or raise optimizer.batch_size",
    )


def _overfits(history: Sequence[EpochMetrics]) -> Finding | None:
    lowest = min(history, key=lambda metrics: metrics.val_loss)
    last = history[-1]
    if (
        len(history) < MIN_EPOCHS
        or last.epoch - lowest.epoch < OVERFIT_EPOCHS
        or last.val_loss < OVERFIT_RISE * lowest.val_loss
        or last.train_loss >= lowest.train_loss
    ):
        return None
    return Finding(
        "overfits",
        f"validation loss rose from {lowest.val_loss:.3g} in epoch {lowest.epoch} to "
        f"{last.val_loss:.3g}, while the training loss fell to {last.train_loss:.3g}",
        "more augmentation (augmentation.policy, mixup, cutmix) or regularisation "
        "(model.drop_rate, model.drop_path_rate, optimizer.weight_decay)",
    )


def _underfits(history: Sequence[EpochMetrics], progress: float) -> Finding | None:
    if len(history) < MIN_EPOCHS or progress >= UNDERFIT_PROGRESS:
        return None
    return Finding(
        "underfits",
        f"training and validation loss came {100 * progress:.0f} % of the way from guessing",
        "optimizer.learning_rate: higher where the loss falls slowly, lower where it does not; "
        "more max_epochs; a larger model.name; less augmentation and dropping",
    )


def _plateaued(
    history: Sequence[EpochMetrics], config: TrainConfig, progress: float
) -> Finding | None:
    sign = 1 if maximises(config.metric) else -1
    values = [sign * metrics.value(config.metric) for metrics in history]
    middle = len(values) // 2
    gain, late_gain = max(values) - values[0], max(values) - max(values[:middle] or [0])
    if (
        len(history) < MIN_EPOCHS + 2
        or progress >= PLATEAU_PROGRESS
        or late_gain > PLATEAU_GAIN * gain
    ):
        return None
    return Finding(
        "plateaued early",
        f"{config.metric} gained {late_gain:.3g} after epoch {middle} of {len(history)}",
        "another optimizer.learning_rate or a larger model.name; or fewer max_epochs for the same",
    )


def _gpu_under_used(history: Sequence[EpochMetrics], *, has_gpu: bool) -> Finding | None:
    if not has_gpu or len(history) < 2:
        return None
    later = history[1:]  # without the first epoch, which starts the loading processes
    waiting = sum(m.data_seconds for m in later) / sum(m.seconds for m in later)
    known = [m.gpu_utilization for m in later if m.gpu_utilization is not None]
    share = sum(known) / len(known) if known else None
    if waiting >= INPUT_BOUND and (share is None or share < GPU_UNDER_USED):
        return Finding(
            "GPU under-used: input-bound",
            f"{100 * waiting:.0f} % of the time was spent waiting for images",
            "more resources.cpus_per_trial and data.num_workers, or a lighter augmentation",
        )
    if share is not None and share < GPU_UNDER_USED:
        return Finding(
            "GPU under-used: batch too small",
            f"the GPU worked {100 * share:.0f} % of the time, and images did not keep it waiting",
            "a larger optimizer.batch_size, or several trials on a GPU (resources.gpus_per_trial)",
        )
    return None


def _few_statistics(images: StatisticsImages | None) -> Finding | None:
    if images is None or (images.now >= FEW_IMAGES and images.now == images.asked):
        return None
    evidence = f"BatchNorm's statistics are of micro-batches of {images.now} images"
    if images.now < images.asked:
        evidence += f"; {images.asked} did not fit into memory"
    return Finding(
        "small micro-batches",
        evidence,
        "a larger optimizer.batch_size or micro_batch_size, a smaller data.image_size, or a model "
        "without BatchNorm (model.name)",
    )


def _progress(loss: float, num_classes: int, smoothing: float = 0.0) -> float:
    """The loss's progress from that of a uniform guess (0) to the lowest possible loss (1)."""
    right, wrong = 1 - smoothing + smoothing / num_classes, smoothing / num_classes
    floor = -right * math.log(right)
    if wrong:
        floor -= (num_classes - 1) * wrong * math.log(wrong)
    guessing = math.log(num_classes)
    return (guessing - loss) / (guessing - floor)
