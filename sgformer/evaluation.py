"""Metrics on a whole split, from its logits and labels."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import log_softmax
from sklearn.metrics import (
    confusion_matrix,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)
from torch import nn

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class ClassMetrics:
    """Of one class; `support` counts its images. Undefined ratios are 0."""

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class SplitMetrics:
    """Metrics of a split, fractions in 0..1; `top5` is top-k with k = min(5, classes)."""

    top1: float
    top5: float
    macro_f1: float
    loss: float
    per_class: dict[str, ClassMetrics]
    confusion_matrix: list[list[int]]  # rows: true class
    num_images: int


@torch.inference_mode()
def predict_logits(
    model: nn.Module, batches: Iterable[tuple[torch.Tensor, torch.Tensor]], device: torch.device
) -> tuple[FloatArray, IntArray]:
    """(N, classes) logits in float32 and (N,) labels, in the batches' order."""
    model.eval()
    logits, labels = [], []
    for images, targets in batches:
        logits.append(model(images.to(device, non_blocking=True)).float().cpu())
        labels.append(targets)
    return torch.cat(logits).numpy(), torch.cat(labels).numpy()


def compute_metrics(
    logits: FloatArray, labels: IntArray, classes: tuple[str, ...]
) -> SplitMetrics:
    """Metrics of finite logits (N, classes) and true classes (N,); loss without smoothing."""
    predicted = logits.argmax(1)
    indices = np.arange(len(classes))
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=indices, zero_division=0.0
    )
    log_probabilities = log_softmax(logits.astype(np.float64), axis=1)
    top5 = 1.0
    if len(classes) > 5:
        top5 = float(top_k_accuracy_score(labels, logits, k=5, labels=indices))
    return SplitMetrics(
        top1=float((predicted == labels).mean()),
        top5=top5,
        macro_f1=float(f1.mean()),
        loss=float(-log_probabilities[np.arange(len(labels)), labels].mean()),
        per_class={
            name: ClassMetrics(
                float(precision[i]), float(recall[i]), float(f1[i]), int(support[i])
            )
            for i, name in enumerate(classes)
        },
        confusion_matrix=confusion_matrix(labels, predicted, labels=indices).tolist(),
        num_images=len(labels),
    )
