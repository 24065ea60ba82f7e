"""Evaluation of a model on a split: its logits batch by batch, and the metrics of a delivery."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import nn

from sgformer.data.fused_input import Given, answer, each
from sgformer.optimization.numerics import Numerics
from sgformer.training.calibration import Calibration, calibration_of
from sgformer.training.counts import Counts, IntArray

MOST_CLASSES_OF_A_MATRIX: Final = 200
MOST_CONFUSIONS: Final = 100


@dataclass(frozen=True)
class ClassMetrics:
    """Metrics of one class, 0..1; a ratio of zero to zero is 0.

    Attributes:
        precision: Share of the images predicted as this class that are of this class.
        recall: Share of this class's images that are predicted as this class.
        f1: Harmonic mean of precision and recall.
        support: Number of this class's images.
    """

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Confusion:
    """Images of one class that are predicted as another one.

    Attributes:
        true: The name of the images' class.
        predicted: The name of the predicted class.
        num_images: Number of these images.
    """

    true: str
    predicted: str
    num_images: int


@dataclass(frozen=True)
class SplitMetrics:
    """Metrics of a split; its size grows with the number of classes, never with their square.

    Attributes:
        top1: Share of images whose class has the highest logit, 0..1.
        top5: Share of images whose class is among the min(5, classes) highest logits, 0..1.
        macro_f1: Mean of the classes' F1 scores, 0..1.
        loss: Mean cross-entropy without label smoothing, in nats; NaN if a logit is not finite.
        per_class: Metrics by class name.
        confusion_matrix: Numbers of images; rows are true classes, columns predicted classes.
            None if there are more than 200 classes.
        most_confused: The 100 most frequent confusions at most, the most frequent first.
        calibration: How confidence and accuracy go together.
        num_images: Number of images of the split.
    """

    top1: float
    top5: float
    macro_f1: float
    loss: float
    per_class: dict[str, ClassMetrics]
    confusion_matrix: list[list[int]] | None
    most_confused: tuple[Confusion, ...]
    calibration: Calibration
    num_images: int


@torch.inference_mode()
def predicted_logits(
    model: nn.Module,
    batches: Iterable[tuple[Given, torch.Tensor]],
    numerics: Numerics,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The model's logits (B, classes) as float32 on its device, and the labels, of each batch.

    A batch whose logits overflow in fp16 is computed again in float32.
    """
    model.eval()
    for given, labels in batches:
        on_device = each(given, lambda part: part.to(numerics.device, non_blocking=True))
        with numerics.autocast():
            logits = answer(model, on_device).float()
        if numerics.precision == "fp16" and not torch.isfinite(logits).all():
            logits = answer(model, on_device)
        yield logits, labels


def split_metrics(counts: Counts, classes: tuple[str, ...]) -> SplitMetrics:
    """The metrics of a delivery, from counts that keep pairs of true and predicted class."""
    scores = counts.scores()
    true, predicted = np.divmod(counts.pairs, len(classes))
    return SplitMetrics(
        top1=scores.top1,
        top5=scores.top5,
        macro_f1=scores.macro_f1,
        loss=scores.loss,
        per_class=_per_class(counts, classes),
        confusion_matrix=_confusion_matrix(counts.pairs, len(classes)),
        most_confused=tuple(_most_confused(counts.pairs, classes)),
        calibration=calibration_of(counts.confidences, true == predicted),
        num_images=scores.num_images,
    )


def _per_class(counts: Counts, classes: tuple[str, ...]) -> dict[str, ClassMetrics]:
    hits, support, predicted = counts.of_classes
    columns = (
        hits / np.maximum(predicted, 1),
        hits / np.maximum(support, 1),
        2 * hits / np.maximum(predicted + support, 1),
        support,
    )
    rows = zip(classes, *(column.tolist() for column in columns), strict=True)
    return {name: ClassMetrics(*values) for name, *values in rows}


def _confusion_matrix(pairs: IntArray, num_classes: int) -> list[list[int]] | None:
    if num_classes > MOST_CLASSES_OF_A_MATRIX:
        return None
    counts = np.bincount(pairs, minlength=num_classes**2)
    matrix: list[list[int]] = counts.reshape(num_classes, num_classes).tolist()
    return matrix


def _most_confused(pairs: IntArray, classes: tuple[str, ...]) -> Iterator[Confusion]:
    """The most frequent confusions; of equally frequent ones, that of the first class first."""
    found, counts = np.unique(pairs, return_counts=True)
    is_wrong = found // len(classes) != found % len(classes)
    found, counts = found[is_wrong], counts[is_wrong]
    for i in np.argsort(-counts, kind="stable")[:MOST_CONFUSIONS]:
        true, predicted = divmod(int(found[i]), len(classes))
        yield Confusion(classes[true], classes[predicted], int(counts[i]))
