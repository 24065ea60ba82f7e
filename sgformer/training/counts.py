"""Counts of a split's predictions, taken batch by batch; metrics are computed from them."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from sgformer.optimization.distributed import total

IntArray = npt.NDArray[np.int64]

TOP: Final = 5
# Logits that are counted at a time; their copies then stay in a CPU's cache.
NUM_AT_A_TIME: Final = 2**17


@dataclass(frozen=True)
class Scores:
    """Metrics of a split as a whole.

    Attributes:
        top1: Share of images whose class has the highest logit, 0..1.
        top5: Share of images whose class is among the min(5, classes) highest logits, 0..1.
        macro_f1: Mean of the classes' F1 scores, 0..1; a ratio of zero to zero is 0.
        loss: Mean cross-entropy without label smoothing, in nats; NaN if a logit is not finite.
        num_images: Number of images.
    """

    top1: float
    top5: float
    macro_f1: float
    loss: float
    num_images: int


class Counts:
    """What the metrics of a split are computed from, without its logits or a confusion matrix.

    Of two equal logits, that of the class with the lower index counts as the higher one. The
    metrics equal scikit-learn's, whose import would cost each worker a second. torchmetrics would
    build a matrix of classes x classes for the F1 score in each batch.

    Args:
        num_classes: Number of classes.
        device: Where the counts are kept; the device of the logits.
        keeps_pairs: Whether to keep each image's true and predicted class, for confusions.
    """

    def __init__(
        self, num_classes: int, device: torch.device | None = None, *, keeps_pairs: bool = False
    ) -> None:
        self._device = device or torch.device("cpu")
        # Images by class: predicted rightly, of the class, predicted as the class.
        self._of_classes = torch.zeros(3, num_classes, dtype=torch.int64, device=self._device)
        # Images among the first five, the sum of losses, and the sum of all logits, which is
        # finite only if each logit is.
        self._sums = torch.zeros(3, dtype=torch.float64, device=self._device)
        self._indices = torch.arange(num_classes, device=self._device)
        self._pairs: list[torch.Tensor] | None = [] if keeps_pairs else None

    @torch.inference_mode()
    def add(self, logits_BC: torch.Tensor, labels_B: torch.Tensor) -> None:
        """Counts a batch of logits (B, classes) and true classes (B,); the device runs ahead."""
        labels_B = labels_B.to(self._device, torch.int64, non_blocking=True)
        num_rows = max(1, NUM_AT_A_TIME // logits_BC.shape[1])
        for logits, labels in zip(
            logits_BC.to(self._device).split(num_rows), labels_B.split(num_rows), strict=True
        ):
            self._add(logits, labels)

    def _add(self, logits_BC: torch.Tensor, labels_B: torch.Tensor) -> None:
        hits, support, predicted = self._of_classes
        predicted_B, one_B = logits_BC.argmax(1), torch.ones_like(labels_B)
        hits.index_add_(0, labels_B, (predicted_B == labels_B).long())
        support.index_add_(0, labels_B, one_B)
        predicted.index_add_(0, predicted_B, one_B)
        wide_BC, labels_B1 = logits_BC.double(), labels_B[:, None]
        own_B1 = logits_BC.gather(1, labels_B1)
        is_before_BC = (logits_BC > own_B1) | ((logits_BC == own_B1) & (self._indices < labels_B1))
        is_first_B = is_before_BC.sum(1) < TOP
        loss = F.cross_entropy(wide_BC, labels_B, reduction="sum")
        self._sums += torch.stack([is_first_B.double().sum(), loss, wide_BC.sum()])
        if self._pairs is not None:
            self._pairs.append(labels_B * len(self._indices) + predicted_B)

    def add_other_processes(self) -> None:
        """Adds the counts of the processes that evaluate other images of the split."""
        self._of_classes, self._sums = total(self._of_classes), total(self._sums)

    @property
    def of_classes(self) -> tuple[IntArray, IntArray, IntArray]:
        """Images by class: predicted rightly, of the class, predicted as the class."""
        hits, support, predicted = self._of_classes.cpu().numpy()
        return hits, support, predicted

    @property
    def pairs(self) -> IntArray:
        """For each image that this process has counted: true class x classes + predicted class."""
        assert self._pairs is not None, "made without keeps_pairs"
        return torch.cat(self._pairs).cpu().numpy()

    def scores(self) -> Scores:
        """The metrics of all images counted so far."""
        hits, support, predicted = self.of_classes
        in_top5, loss, sum_of_logits = self._sums.tolist()
        num_images = int(support.sum())
        f1 = 2 * hits / np.maximum(predicted + support, 1)
        return Scores(
            top1=int(hits.sum()) / num_images,
            top5=in_top5 / num_images,
            macro_f1=float(f1.mean()),
            loss=loss / num_images if np.isfinite(sum_of_logits) else float("nan"),
            num_images=num_images,
        )
