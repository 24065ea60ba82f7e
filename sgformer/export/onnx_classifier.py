"""An exported classifier: an ONNX file that also holds class names and preprocessing."""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from onnxruntime.capi.onnxruntime_pybind11_state import (
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    NotImplemented,
)
from scipy.special import softmax

from sgformer.catalog import Preprocessing
from sgformer.cpus import usable_cpus
from sgformer.data.augmentation import eval_transform
from sgformer.data.model_input import ModelInput
from sgformer.data_config import DataConfig
from sgformer.errors import DataError
from sgformer.images.decoding import decode_content, resize
from sgformer.images.pixel_rules import PixelRules
from sgformer.images.trained_images import TrainedImages
from sgformer.sources.source import read_content

METADATA_KEY: Final = "sgformer"
INPUT, OUTPUT = "input", "output"


@dataclass(frozen=True)
class Prediction:
    """What a model says of an image.

    Attributes:
        classes: The probability of each class, the likeliest class first.
        traits: What is odd in the image; see `decoding.Decoded`.
    """

    classes: dict[str, float]
    traits: frozenset[str]


@dataclass(frozen=True)
class ModelImage:
    """An image as a model takes it.

    Attributes:
        pixels: (3, side, side) uint8, resized and cropped.
        traits: What is odd in the image; see `decoding.Decoded`.
    """

    pixels: torch.Tensor
    traits: frozenset[str]


class OnnxClassifier:
    """Runs an exported model on a CPU.

    Args:
        path: The exported model.
        num_threads: Threads that compute; None: as many as the CPUs that this process may use.

    Attributes:
        session: ONNX Runtime's session.
        classes: Class names, in the order of the logits.
        data: The preprocessing of the model's evaluation.
        rules: How deep and transparent images become 8-bit RGB.
        trained_images: What the model keeps of the images of its training; None: it was exported
            by an earlier version.

    Raises:
        DataError: The file is missing, is not ONNX, or was not exported by this program.
    """

    def __init__(self, path: Path, num_threads: int | None = None) -> None:
        if not path.is_file():
            raise DataError(f"no such file: {path}; expected an exported model.onnx")
        onnxruntime.set_default_logger_severity(3)
        try:
            self.session = onnxruntime.InferenceSession(
                str(path), _options(num_threads), providers=["CPUExecutionProvider"]
            )
        except (Fail, InvalidArgument, InvalidGraph, InvalidProtobuf, NotImplemented) as error:
            raise DataError(f"not an ONNX model: {path}: {str(error).splitlines()[0]}") from None
        text = self.session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        if text is None:
            raise DataError(
                f"{path} was not exported by this program: it has no {METADATA_KEY!r} metadata "
                "with classes and preprocessing"
            )
        try:
            metadata: dict[str, Any] = json.loads(text)
            self.classes = tuple(metadata["classes"])
            data = DataConfig.model_validate(metadata["data"])
            self.trained_images = TrainedImages.from_metadata(metadata)
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path} has metadata that this version cannot read: {str(error).splitlines()[0]}"
            ) from None
        self.data = data.with_preprocessing(Preprocessing())  # of files of former versions
        self.rules = PixelRules(data.background, data.max_value)
        self._transform = eval_transform(self.data)
        self._input = ModelInput(self.data.preprocessing)

    def logits(self, images_BCHW: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The logits (B, classes) of normalised images (B, 3, H, W)."""
        outputs: list[npt.NDArray[np.float32]] = self.session.run([OUTPUT], {INPUT: images_BCHW})
        return outputs[0]

    def logits_of(self, batches: Iterable[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        """The logits (N, classes) of all batches, in order."""
        return np.concatenate([self.logits(batch) for batch in batches])

    def predict(self, path: Path) -> Prediction:
        """The probability of each class for an image file.

        Raises:
            DataError: The image cannot be read.
        """
        image = self.read(read_content(path))
        if image is None:
            raise DataError(f"cannot read image: {path}")
        return self.predictions([image])[0]

    def read(self, content: bytes) -> ModelImage | None:
        """The image in a file's bytes; None if it is not a complete, readable image."""
        side = self.data.decoded_pixels
        image = decode_content(content, side, self.rules)
        if image.pixels is None:
            return None
        pixels = self._transform(resize(image.pixels, side))
        return ModelImage(pixels, frozenset(image.traits))

    def predictions(self, images: Sequence[ModelImage]) -> list[Prediction]:
        """The probability of each class for each image, computed as one batch."""
        batch = self._input.normalised(torch.stack([image.pixels for image in images])).numpy()
        shares = softmax(self.logits(batch).astype(np.float64), axis=1)
        return [
            Prediction(
                {self.classes[i]: float(row[i]) for i in np.argsort(-row, kind="stable")},
                image.traits,
            )
            for row, image in zip(shares, images, strict=True)
        ]


def _options(num_threads: int | None) -> onnxruntime.SessionOptions:
    """ONNX Runtime's own options; where this process may not use all CPUs, with fewer threads."""
    options, num_cpus = onnxruntime.SessionOptions(), num_threads or usable_cpus()
    if num_cpus < (os.cpu_count() or 1):
        options.intra_op_num_threads = num_cpus
    return options
