"""What became of each image of a split, so that models are compared image by image.

Importing this module is cheap; torch is imported where logits are looked at.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

import numpy as np
import numpy.typing as npt

from sgformer.config import Metric, maximises
from sgformer.intervals import paired_interval

if TYPE_CHECKING:
    import torch

IntArray = npt.NDArray[np.int64]
NORMAL_95: Final = 1.96  # standard deviations of a normal distribution
NUM_RESAMPLES: Final = 1000


@dataclass(frozen=True)
class Outcomes:
    """A model's answers on N images.

    Attributes:
        labels: (N,) true classes.
        predicted: (N,) predicted classes.
        in_top5: (N,) whether the true class is among the five likeliest.
        losses: (N,) cross-entropies in nats; NaN where a logit is not finite.
    """

    labels: IntArray
    predicted: IntArray
    in_top5: npt.NDArray[np.bool_]
    losses: npt.NDArray[np.float64]

    @classmethod
    def of(cls, batches: "Iterable[tuple[torch.Tensor, torch.Tensor]]") -> Self:
        """The outcomes of batches of logits (B, classes) and labels (B,)."""
        columns = zip(*(_of_batch(*batch) for batch in batches), strict=True)
        return cls(*(np.concatenate(column) for column in columns))

    def part(self, rows: IntArray) -> Self:
        """The outcomes of some images."""
        return type(self)(
            self.labels[rows], self.predicted[rows], self.in_top5[rows], self.losses[rows]
        )

    def score(self, metric: Metric) -> tuple[float, float]:
        """The metric, then the negative loss, which tells equals apart; higher is better."""
        value, loss = self.value(metric), -float(self.losses.mean())
        return (value if maximises(metric) else -value, loss)

    def value(self, metric: Metric) -> float:
        """A metric of the images."""
        if metric == "val_loss":
            return float(self.losses.mean())
        if metric == "val_macro_f1":
            return _macro_f1(self.labels, self.predicted)
        return float(self._counted(metric).mean())

    def _counted(self, metric: Metric) -> npt.NDArray[np.bool_]:
        """(N,) whether each image counts for a metric that is a share of images."""
        return self.in_top5 if metric == "val_top5" else self.predicted == self.labels


@dataclass(frozen=True)
class PairedGain:
    """What one model gains over another one on the same images; positive is better.

    Attributes:
        mean: The difference of the metric.
        low, high: Its 95 % interval over other images of the same source.
    """

    mean: float
    low: float
    high: float


def paired_gain(before: Outcomes, after: Outcomes, metric: Metric) -> PairedGain:
    """What the model of `after` gains over that of `before`, whose images are the same.

    Shares of images have the interval of `paired_interval`, the loss that of the mean of its
    differences, macro F1 that of 1,000 resamples of the images (the bootstrap's percentiles).
    """
    sign = 1.0 if maximises(metric) else -1.0
    mean = sign * (after.value(metric) - before.value(metric))
    if metric == "val_loss":
        differences = before.losses - after.losses
        margin = NORMAL_95 * float(differences.std(ddof=1)) / len(differences) ** 0.5
        return PairedGain(mean, mean - margin, mean + margin)
    if metric == "val_macro_f1":
        return PairedGain(mean, *_resampled(before, after))
    was, now = before._counted(metric), after._counted(metric)
    lost, won = int((was & ~now).sum()), int((now & ~was).sum())
    return PairedGain(mean, *paired_interval(lost, won, len(was)))


def _resampled(before: Outcomes, after: Outcomes) -> tuple[float, float]:
    generator, num = np.random.default_rng(0), len(before.labels)
    gains = []
    for _ in range(NUM_RESAMPLES):
        rows = generator.integers(num, size=num)
        labels = before.labels[rows]
        gains.append(
            _macro_f1(labels, after.predicted[rows]) - _macro_f1(labels, before.predicted[rows])
        )
    low, high = np.percentile(gains, (2.5, 97.5))
    return float(low), float(high)


def _macro_f1(labels: IntArray, predicted: IntArray) -> float:
    num = 1 + int(max(labels.max(), predicted.max()))
    hits = np.bincount(labels[labels == predicted], minlength=num)
    sizes = np.bincount(labels, minlength=num) + np.bincount(predicted, minlength=num)
    known = np.bincount(labels, minlength=num) > 0
    return float((2 * hits / np.maximum(sizes, 1))[known].mean())


def _of_batch(
    logits: "torch.Tensor", labels: "torch.Tensor"
) -> tuple[IntArray, IntArray, npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    import torch
    import torch.nn.functional as F

    from sgformer.training.counts import TOP

    labels = labels.to(logits.device, torch.int64)
    losses = F.cross_entropy(logits.float(), labels, reduction="none")
    own = logits.gather(1, labels[:, None])
    in_top5 = (logits > own).sum(1) < TOP
    losses = losses.where(logits.isfinite().all(1), torch.nan)
    columns = (labels, logits.argmax(1), in_top5, losses.double())
    return tuple(column.cpu().numpy() for column in columns)  # type: ignore[return-value]
