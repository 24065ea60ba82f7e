"""Runs exported models of either kind of input on the images of a data set."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sgformer.data.fused_input import each
from sgformer.data.image_data import ImageData, Samples
from sgformer.data.model_input import eval_batches
from sgformer.data_config import DataConfig
from sgformer.errors import DataError
from sgformer.export.onnx_classifier import ExportedModel, OnnxClassifier
from sgformer.images.decoding import RgbImage, decode_content


def normalised(
    data: ImageData,
    samples: Samples,
    config: DataConfig,
    batch_size: int = 32,
    num_workers: int = 0,
) -> Iterator[Any]:
    """The samples' normalised images (B, 3, H, W), in order, as arrays, with any features."""
    batches = eval_batches(data, samples, config, batch_size, num_workers=num_workers)
    return (each(given, torch.Tensor.numpy) for given, _ in batches)


def logits_on(
    classifier: ExportedModel, data: ImageData, samples: Samples, num_workers: int = 0
) -> Iterator[npt.NDArray[np.float32]]:
    """The logits (B, classes) of the samples, in order; of a model of RGB images, log shares.

    Args:
        classifier: The model.
        data: The images.
        samples: (N, 2) positions and labels, such as those of a split.
        num_workers: The number of loading processes; a model of RGB images needs none.

    Raises:
        DataError: A model of RGB images meets an image that cannot be read.
    """
    if isinstance(classifier, OnnxClassifier):
        batches = normalised(data, samples, classifier.data, num_workers=num_workers)
        yield from map(classifier.logits, batches)
        return
    for position, _ in samples:
        features = None if data.features is None else data.features.matrix[position]
        shares = classifier.probabilities(decoded(classifier, data, int(position)), features)
        yield np.log(np.maximum(shares, np.finfo(np.float32).tiny))[None].astype(np.float32)


def decoded(classifier: ExportedModel, data: ImageData, position: int) -> RgbImage:
    """An image (H, W, 3) at its own size; raises DataError if it cannot be read."""
    content = data.images.content(position)
    pixels = decode_content(content, classifier.data.decoded_pixels, classifier.rules).pixels
    if pixels is None:
        raise DataError(f"cannot read image {position} of {data.folder.root}")
    return pixels
