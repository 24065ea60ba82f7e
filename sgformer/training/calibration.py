"""Calibration: whether a model is right as often as it is sure."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

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


def calibration_of(
    confidences: npt.NDArray[np.floating], is_right: npt.NDArray[np.bool_]
) -> Calibration:
    """The calibration on some images.

    Args:
        confidences: The predicted class's probability, for each image.
        is_right: Whether the predicted class is the image's.
    """
    bins = np.searchsorted(np.arange(1, NUM_BINS) / NUM_BINS, confidences.astype(np.float64))
    num_images = np.bincount(bins, minlength=NUM_BINS)
    has_images = num_images > 0
    num_images = num_images[has_images]
    confidence, accuracy = (
        np.bincount(bins, weights=of_images, minlength=NUM_BINS)[has_images] / num_images
        for of_images in (confidences, is_right)
    )
    columns = (confidence.tolist(), accuracy.tolist(), num_images.tolist())
    return Calibration(
        ece=float(np.abs(confidence - accuracy) @ num_images / num_images.sum()),
        bins=tuple(CalibrationBin(*row) for row in zip(*columns, strict=True)),
    )
