"""Calibration: whether a model is right as often as it is sure."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

NUM_BINS: Final = 15  # Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017


@dataclass(frozen=True)
class CalibrationBin:
    """The images whose confidence, the predicted class's probability, lies in one range.

    Attributes:
        confidence: Their mean confidence, 0..1.
        accuracy: The share of them that is predicted rightly, 0..1.
        num_images: Number of these images.
    """

    confidence: float
    accuracy: float
    num_images: int


@dataclass(frozen=True)
class Calibration:
    """How confidence and accuracy go together.

    Attributes:
        ece: Expected calibration error, 0..1: the mean over all images of the difference between
            the confidence and the accuracy of the image's bin; NaN if a logit is not finite.
        bins: The bins that have images, by confidence; each is 1/15 wide and has its upper end.
    """

    ece: float
    bins: tuple[CalibrationBin, ...]


def sums_of_bins(confidences_B: torch.Tensor, is_right_B: torch.Tensor) -> torch.Tensor:
    """Images, sums of their confidences, and right ones in each bin: (3, 15) float64."""
    confidences_B = confidences_B.double()
    ends = torch.arange(1, NUM_BINS, device=confidences_B.device).double() / NUM_BINS
    bins_B = torch.bucketize(confidences_B, ends)
    rows_B = torch.stack([torch.ones_like(confidences_B), confidences_B, is_right_B.double()])
    return rows_B.new_zeros(3, NUM_BINS).index_add_(1, bins_B, rows_B)


def calibration_of(sums: npt.NDArray[np.float64]) -> Calibration:
    """The calibration of all images whose `sums_of_bins` were added up."""
    num_images, confidence, num_right = sums[:, sums[0] > 0]
    confidence, accuracy = confidence / num_images, num_right / num_images
    columns = (confidence.tolist(), accuracy.tolist(), num_images.astype(int).tolist())
    return Calibration(
        ece=float(np.abs(confidence - accuracy) @ num_images / num_images.sum()),
        bins=tuple(CalibrationBin(*row) for row in zip(*columns, strict=True)),
    )
