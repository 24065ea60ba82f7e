"""Evaluation of a model on a split: its logits, and the metrics computed from them."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from sgformer.optimization.distributed import FloatArray, IntArray
from sgformer.optimization.numerics import Numerics


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
class SplitMetrics:
    """Metrics of a split.

    Attributes:
        top1: Share of images whose class has the highest logit, 0..1.
        top5: Share of images whose class is among the min(5, classes) highest logits, 0..1.
        macro_f1: Mean of the classes' F1 scores, 0..1.
        loss: Mean cross-entropy without label smoothing, in nats.
        per_class: Metrics by class name.
        confusion_matrix: Numbers of images; rows are true classes, columns predicted classes.
        num_images: Number of images of the split.
    """

    top1: float
    top5: float
    macro_f1: float
    loss: float
    per_class: dict[str, ClassMetrics]
    confusion_matrix: list[list[int]]
    num_images: int


@torch.inference_mode()
def predict_logits(
    model: nn.Module,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    numerics: Numerics,
) -> tuple[FloatArray, IntArray]:
    """The model's (N, classes) logits as float32, and the (N,) labels, in the batches' order.

    A batch whose logits overflow in fp16 is computed again in float32.
    """
    model.eval()
    logits, labels = [], []
    for images, targets in batches:
        on_device = images.to(numerics.device, non_blocking=True)
        with numerics.autocast():
            outputs = model(on_device).float().cpu()
        if numerics.precision == "fp16" and not torch.isfinite(outputs).all():
            outputs = model(on_device).cpu()
        logits.append(outputs)
        labels.append(targets)
    return torch.cat(logits).numpy(), torch.cat(labels).numpy()


def compute_metrics(
    logits: FloatArray, labels: IntArray, classes: tuple[str, ...]
) -> SplitMetrics:
    """Metrics from finite logits (N, classes) and true classes (N,).

    The metrics equal scikit-learn's, whose import would cost each worker a second.
    """
    num_classes = len(classes)
    predicted = logits.argmax(1)
    confusion = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    confusion = confusion.reshape(num_classes, num_classes)
    hits, support = confusion.diagonal(), confusion.sum(1)
    precision = hits / np.maximum(confusion.sum(0), 1)
    recall = hits / np.maximum(support, 1)
    f1 = 2 * hits / np.maximum(confusion.sum(0) + support, 1)
    top5 = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    loss = F.cross_entropy(torch.from_numpy(logits).double(), torch.from_numpy(labels).long())
    return SplitMetrics(
        top1=float((predicted == labels).mean()),
        top5=float((top5 == labels[:, None]).any(1).mean()),
        macro_f1=float(f1.mean()),
        loss=float(loss),
        per_class={
            name: ClassMetrics(
                float(precision[i]), float(recall[i]), float(f1[i]), int(support[i])
            )
            for i, name in enumerate(classes)
        },
        confusion_matrix=confusion.tolist(),
        num_images=len(labels),
    )
