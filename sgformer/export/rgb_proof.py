"""The proof that a model of RGB images predicts what `predict` does with the model in the file."""

import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import onnx

from sgformer.data.image_data import ImageData
from sgformer.errors import ExportError
from sgformer.export.latency import BATCH_SIZES
from sgformer.export.onnx_classifier import OnnxClassifier, RgbClassifier
from sgformer.export.onnx_file import facts
from sgformer.export.proof import measure_latency, spread_over_classes
from sgformer.features.columns import FloatArray
from sgformer.images.decoding import RgbImage, decode_content

NUM_IMAGES: Final = 32
SCALES: Final = (1.0, 2 / 3, 3 / 2)
MOST_PIXELS: Final = 4_000_000  # of an image that is enlarged
MIN_TOP1_AGREEMENT: Final = 0.98
# Differences of a probability. A pixel that differs by 1 of 255 may swap two tokens of SG-Former,
# which changes that image's logits. Source: measured, see docs/performance.md.
MOST_USUAL, MOST_OF_ANY, MIN_USUAL_SHARE = 0.02, 0.2, 0.9
DIFFERS: Final = (
    "Decoding is the caller's: predict turns rotated photographs, lays transparent images on "
    "data.background, scales deep ones to 8 bits and reads a JPEG of over 50 megapixels at an "
    "eighth of its size, and this file takes RGB of 8 bits. The resized pixels differ from "
    "predict's by at most 2 of 255, because ONNX Runtime and PyTorch round the filter's weights "
    "differently. Images of one batch have one size."
)


@dataclass(frozen=True)
class RgbParity:
    """How well a model of RGB images and `predict` agree on real images of several sizes.

    Attributes:
        top1_agreement: Share of images for which both name the same likeliest class, 0..1.
        max_probability_diff: The largest absolute difference of any probability.
        num_images: Number of images: val images at their own size, at 2/3 and at 3/2 of it.
        smallest: Height and width of the smallest image.
        largest: Height and width of the largest image.
        differs: What differs, in words.
    """

    top1_agreement: float
    max_probability_diff: float
    num_images: int
    smallest: tuple[int, int]
    largest: tuple[int, int]
    differs: str


def prove_rgb(path: Path, reference: Path, data: ImageData) -> dict[str, Any]:
    """Compares the file with `predict` on val images, and measures its latency.

    Args:
        path: The file that takes RGB images.
        reference: The model of normalised images.
        data: The images.

    Returns:
        The file's entry in export.json.

    Raises:
        ExportError: The files predict different classes or probabilities.
    """
    onnx.checker.check_model(path, full_check=True)
    classifier = RgbClassifier(path)
    images = list(_images(data, OnnxClassifier(reference)))
    features = None
    if data.features is not None:
        features = data.features.matrix[data.samples("val")[: len(images), 0]]
    parity = check_rgb_parity(classifier, OnnxClassifier(reference), images, features)
    batch = np.stack([images[0]] * max(BATCH_SIZES))
    return {
        **facts(path),
        "parity": asdict(parity),
        "latency_of": f"{images[0].shape[1]} x {images[0].shape[0]} pixels",
        "latency_ms": {
            str(n): asdict(measure_latency(classifier.of_batch, batch[:n])) for n in BATCH_SIZES
        },
    }


def _images(data: ImageData, reference: OnnxClassifier) -> Iterator[RgbImage]:
    """Decoded val images as their files have them, and smaller and larger ones made of them."""
    for i, _ in spread_over_classes(data.samples("val"), NUM_IMAGES):
        content = data.images.content(int(i))
        pixels = decode_content(content, reference.data.decoded_pixels, reference.rules).pixels
        if pixels is None:
            continue
        for scale in SCALES:
            if scale <= 1 or pixels.shape[0] * pixels.shape[1] <= MOST_PIXELS:
                height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
                how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
                yield np.asarray(cv2.resize(pixels, (width, height), interpolation=how), np.uint8)


def check_rgb_parity(
    classifier: RgbClassifier,
    reference: OnnxClassifier,
    images: list[RgbImage],
    features: FloatArray | None = None,
) -> RgbParity:
    """Compares the probabilities of decoded images.

    Args:
        classifier: The file that takes RGB images.
        reference: The model of normalised images.
        images: The images.
        features: Rows (N, size) that go with the images in turn, whose own they need not be;
            None: the model takes images alone.

    Raises:
        ExportError: They differ by too much, or too many images get another class.
    """
    if not images:
        raise ExportError("no val image can be read, so that the export cannot be proven")
    rows = [None] if features is None else list(features)
    pairs = list(zip(images, itertools.cycle(rows)))
    expected = np.stack([reference.probabilities(*pair) for pair in pairs])
    actual = np.stack([classifier.probabilities(*pair) for pair in pairs])
    diff = np.abs(actual - expected).max(axis=1)
    agreement = float((actual.argmax(1) == expected.argmax(1)).mean())
    if (
        agreement < MIN_TOP1_AGREEMENT
        or diff.max() > MOST_OF_ANY
        or (diff <= MOST_USUAL).mean() < MIN_USUAL_SHARE
    ):
        raise ExportError(
            f"the model of RGB images disagrees with predict: probabilities differ by up to "
            f"{diff.max():.2g}, classes agree on {agreement:.1%} of {len(images)} images"
        )
    by_size = sorted((pixels.shape[:2] for pixels in images), key=lambda size: size[0] * size[1])
    (low, *_, high) = [*by_size, by_size[-1]]
    return RgbParity(
        agreement, float(diff.max()), len(images), (low[0], low[1]), (high[0], high[1]), DIFFERS
    )
