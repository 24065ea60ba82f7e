"""Counts of a split's predictions, taken batch by batch; metrics are computed from them."""

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from sgformer.optimization.distributed import total

IntArray = npt.NDArray[np.int64]

TOP: Final = 5
# Logits that are counted at a time: their copies stay in a CPU's cache, or fill a GPU.
NUM_AT_A_TIME: Final = {"cpu": 2**19, "cuda": 2**21}
NUM_COUNTED_AT_ONCE: Final = 2**14  # images, of which 40 bytes each are kept until then
# Up to so many classes losses are computed in float64, which takes a CPU three times as long as
# float32 does; beyond, a loss is off by less than 1e-6 of its value.
MOST_CLASSES_IN_FLOAT64: Final = 256


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


class _OfImages(NamedTuple):
    """What is kept of images until they are counted, (B,) each.

    Attributes:
        labels: True classes.
        predicted: Predicted classes.
        num_before: How many classes have a higher logit than the true one.
        losses: Cross-entropies.
        log_confidences: Logarithms of the predicted classes' probabilities.
        lowest: The lowest logit of each.
    """

    labels: torch.Tensor
    predicted: torch.Tensor
    num_before: torch.Tensor
    losses: torch.Tensor
    log_confidences: torch.Tensor
    lowest: torch.Tensor


class Counts:
    """What the metrics of a split are computed from, without its logits or a confusion matrix.

    Of two equal logits, that of the class with the lower index counts as the higher one. The
    metrics equal scikit-learn's, whose import would cost each worker a second. torchmetrics would
    build a matrix of classes x classes for the F1 score in each batch.

    Args:
        num_classes: Number of classes.
        device: Where the counts are kept; the device of the logits.
        keeps_pairs: Whether to keep each image's true and predicted class, for confusions, and
            its confidence.
    """

    def __init__(
        self, num_classes: int, device: torch.device | None = None, *, keeps_pairs: bool = False
    ) -> None:
        self._device = device or torch.device("cpu")
        # Images by class: predicted rightly, of the class, predicted as the class.
        self._of_classes = torch.zeros(3, num_classes, dtype=torch.int64, device=self._device)
        # Images among the first five, and the sum of losses.
        self._sums = torch.zeros(2, dtype=torch.float64, device=self._device)
        self._indices = torch.arange(num_classes, dtype=torch.float32, device=self._device)
        self._dtype = torch.float64 if num_classes <= MOST_CLASSES_IN_FLOAT64 else torch.float32
        self._scratch = torch.empty(2, 0, num_classes)
        self._pairs: list[torch.Tensor] | None = [] if keeps_pairs else None
        self._confidences: list[torch.Tensor] = []
        self._waiting: list[_OfImages] = []  # images that are yet to be counted
        self._num_waiting = 0

    @torch.inference_mode()
    def add(self, logits_BC: torch.Tensor, labels_B: torch.Tensor) -> None:
        """Counts a batch of logits (B, classes) and true classes (B,); the device runs ahead."""
        logits_BC = logits_BC.to(self._device)
        # A copy: labels wait longer than a caller need keep them.
        labels_B = labels_B.to(self._device, torch.int64, non_blocking=True, copy=True)
        num_rows = max(1, NUM_AT_A_TIME[self._device.type] // logits_BC.shape[1])
        for part in zip(logits_BC.split(num_rows), labels_B.split(num_rows), strict=True):
            self._waiting.append(self._of_images(*part))
        self._num_waiting += len(labels_B)
        if self._num_waiting >= NUM_COUNTED_AT_ONCE:
            self._count()

    @torch.inference_mode()
    def _count(self) -> None:
        """Counts the images that wait for it: many at once, for each operation has its price."""
        if not self._waiting:
            return
        columns = map(torch.cat, zip(*self._waiting, strict=True))
        labels_B, predicted_B, num_before_B, losses_B, log_confidences_B, lowest_B = columns
        self._waiting, self._num_waiting = [], 0
        # A logit of -inf need not change the loss.
        losses_B = losses_B.where(lowest_B.isfinite(), torch.nan)
        one_B = torch.ones_like(labels_B)
        hits, support, predicted = self._of_classes
        hits.index_add_(0, labels_B, (predicted_B == labels_B).long())
        support.index_add_(0, labels_B, one_B)
        predicted.index_add_(0, predicted_B, one_B)
        in_top5, loss = (num_before_B < TOP).sum(), losses_B.sum(dtype=torch.float64)
        self._sums += torch.stack([in_top5, loss])
        if self._pairs is not None:
            self._pairs.append(labels_B * len(self._indices) + predicted_B)
            self._confidences.append(log_confidences_B.exp().float())

    def _of_images(self, logits_BC: torch.Tensor, labels_B: torch.Tensor) -> _OfImages:
        """What is kept of each image: label, prediction, rank, loss, confidence."""
        labels_B1 = labels_B[:, None]
        if self._scratch.shape[1] < len(logits_BC):
            self._scratch = torch.empty(
                2, *logits_BC.shape, dtype=self._dtype, device=self._device
            )
        # Comparisons as 0 and 1 in float, which a CPU sums faster than truth values.
        one_BC, other_BC = self._scratch[:, : len(logits_BC)]
        own_B1 = logits_BC.gather(1, labels_B1)
        num_before_B = torch.gt(logits_BC, own_B1, out=one_BC).sum(1)
        num_equal_B = torch.eq(logits_BC, own_B1, out=one_BC).sum(1)
        # Whether classes tie is not asked of a GPU, for whose answer the CPU would have to wait.
        if self._device.type != "cpu" or (num_equal_B > 1).any():
            torch.lt(self._indices, labels_B1.float(), out=other_BC)
            num_before_B += one_BC.mul_(other_BC).sum(1)
        torch.log_softmax(logits_BC.to(self._dtype), 1, out=one_BC)
        losses_B = -one_BC.gather(1, labels_B1).squeeze(1)
        predicted_B, lowest_B = _first_highest(logits_BC), logits_BC.amin(1)
        sure_B = one_BC.gather(1, predicted_B[:, None]).squeeze(1)
        return _OfImages(labels_B, predicted_B, num_before_B, losses_B, sure_B, lowest_B)

    def add_other_processes(self) -> None:
        """Adds the counts of the processes that evaluate other images of the split."""
        self._count()
        self._of_classes, self._sums = total(self._of_classes), total(self._sums)

    @property
    def of_classes(self) -> tuple[IntArray, IntArray, IntArray]:
        """Images by class: predicted rightly, of the class, predicted as the class."""
        self._count()
        hits, support, predicted = self._of_classes.cpu().numpy()
        return hits, support, predicted

    @property
    def pairs(self) -> IntArray:
        """For each image that this process has counted: true class x classes + predicted class."""
        assert self._pairs is not None, "made without keeps_pairs"
        self._count()
        return torch.cat(self._pairs).cpu().numpy()

    @property
    def confidences(self) -> npt.NDArray[np.float32]:
        """The predicted class's probability, for each image of `pairs`."""
        self._count()
        return torch.cat(self._confidences).cpu().numpy()

    def scores(self) -> Scores:
        """The metrics of all images counted so far."""
        hits, support, predicted = self.of_classes
        in_top5, loss = self._sums.tolist()
        num_images = int(support.sum())
        f1 = 2 * hits / np.maximum(predicted + support, 1)
        return Scores(
            top1=int(hits.sum()) / num_images,
            top5=in_top5 / num_images,
            macro_f1=float(f1.mean()),
            loss=loss / num_images if math.isfinite(loss) else math.nan,
            num_images=num_images,
        )


def _first_highest(logits_BC: torch.Tensor) -> torch.Tensor:
    """The index of each row's highest logit, of the first one among equal ones: (B,)."""
    if logits_BC.device.type == "cpu":  # where PyTorch's argmax takes ten times as long
        return torch.from_numpy(logits_BC.numpy().argmax(1))
    return logits_BC.argmax(1)
