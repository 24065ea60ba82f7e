"""Exported classifiers: ONNX files that also hold class names and preprocessing."""

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

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
from sgformer.data.fused_input import FusedInput, images_of
from sgformer.data.model_input import ModelInput
from sgformer.data_config import DataConfig
from sgformer.errors import DataError
from sgformer.export.names import FEATURES, IMAGES, INPUT, METADATA_KEY, OUTPUT, PROBABILITIES
from sgformer.features.columns import FeatureColumns, FloatArray
from sgformer.images.decoding import RgbImage, decode_content, resize
from sgformer.images.pixel_rules import PixelRules
from sgformer.images.trained_images import TrainedImages
from sgformer.sources.source import read_content


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
    """An image as a model of normalised images takes it, before it is normalised.

    Attributes:
        pixels: (3, side, side) uint8, resized and cropped.
        traits: What is odd in the image; see `decoding.Decoded`.
        features: The image's features, (size,); None: it has none.
    """

    pixels: torch.Tensor
    traits: frozenset[str]
    features: FloatArray | None = None


class ExportedModel(ABC):
    """What all exported files have in common: classes and the rules of decoding.

    Args:
        path: The exported model.
        num_threads: Threads that compute; None: as many as the CPUs that this process may use.

    Attributes:
        classes: Class names, in the order of the logits.
        data: The preprocessing of the model's evaluation.
        session: ONNX Runtime's session, on a CPU; not of an OpenVINO model.
        rules: How deep and transparent images become 8-bit RGB.
        trained_images: What the model keeps of the images of its training; None: it was exported
            by an earlier version.
        columns: The columns of features that the model takes; None: it takes images alone.

    Raises:
        DataError: The file is missing, is not ONNX, was not exported by this program, or takes
            other images than this class gives it.
    """

    TAKES: ClassVar[str] = INPUT

    def __init__(self, path: Path, num_threads: int | None = None) -> None:
        text, names = self._open(path, num_threads)
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
            self.columns = FeatureColumns.from_metadata(metadata)
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path} has metadata that this version cannot read: {str(error).splitlines()[0]}"
            ) from None
        if self.TAKES not in names:
            raise DataError(
                f"{path} takes {', '.join(names)}; this needs a model that takes {self.TAKES}, "
                f"such as {'model.onnx' if self.TAKES == INPUT else 'model.uint8.onnx'}"
            )
        self.data = data.with_preprocessing(Preprocessing())  # of files of former versions
        self.rules = PixelRules(data.background, data.max_value)

    def _open(self, path: Path, num_threads: int | None) -> tuple[str | None, list[str]]:
        """Opens a session; returns the metadata's text and the names of the inputs."""
        self.session = open_session(path, num_threads)
        text = self.session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        return text, [value.name for value in self.session.get_inputs()]

    @abstractmethod
    def probabilities(
        self, pixels: RgbImage, features: FloatArray | None = None
    ) -> npt.NDArray[np.floating[Any]]:
        """The probabilities (classes,) of a decoded image of any size, with any features."""

    def fed(self, name: str, given: Any) -> dict[str, Any]:
        """What the model is run with, by the names of its inputs; features that lack are NaN.

        Args:
            name: The input that takes the images.
            given: Images, or FusedInput of images and features.
        """
        images = images_of(given)
        if self.columns is None:
            return {name: images}
        if isinstance(given, FusedInput):
            return {name: images, FEATURES: given.features}
        lacking = np.full((len(images), self.columns.size), np.nan, np.float32)
        return {name: images, FEATURES: lacking}

    def predict(self, path: Path, features: FloatArray | None = None) -> Prediction:
        """The probability of each class for an image file, with any features (size,).

        Raises:
            DataError: The image cannot be read.
        """
        image = decode_content(read_content(path), self.data.decoded_pixels, self.rules)
        if image.pixels is None:
            raise DataError(f"cannot read image: {path}")
        shares = self.probabilities(image.pixels, features)
        return self.ordered(shares, frozenset(image.traits))

    def ordered(
        self, probabilities: npt.NDArray[np.floating[Any]], traits: frozenset[str]
    ) -> Prediction:
        """What the probabilities (classes,) say of an image with these traits."""
        order = np.argsort(-probabilities, kind="stable")
        return Prediction({self.classes[i]: float(probabilities[i]) for i in order}, traits)


class OnnxClassifier(ExportedModel):
    """Runs a model of normalised images, such as model.onnx, on a CPU."""

    def __init__(self, path: Path, num_threads: int | None = None) -> None:
        super().__init__(path, num_threads)
        self._transform = eval_transform(self.data)
        self._input = ModelInput(self.data.preprocessing)

    def probabilities(
        self, pixels: RgbImage, features: FloatArray | None = None
    ) -> npt.NDArray[np.floating[Any]]:
        """The probabilities (classes,) of a decoded image of any size, with any features."""
        image = ModelImage(self._prepared(pixels), frozenset(), features)
        probabilities: npt.NDArray[np.floating[Any]] = self._shares([image])[0]
        return probabilities

    def read(self, content: bytes, features: FloatArray | None = None) -> ModelImage | None:
        """The image in a file's bytes, with any features; None if it is no readable image."""
        image = decode_content(content, self.data.decoded_pixels, self.rules)
        if image.pixels is None:
            return None
        return ModelImage(self._prepared(image.pixels), frozenset(image.traits), features)

    def predictions(self, images: Sequence[ModelImage]) -> list[Prediction]:
        """The probability of each class for each image, computed as one batch."""
        shares = self._shares(images)
        return [self.ordered(row, image.traits) for row, image in zip(shares, images, strict=True)]

    def _prepared(self, pixels: RgbImage) -> torch.Tensor:
        """(3, side, side) uint8: a decoded image, resized and cropped."""
        return self._transform(resize(pixels, self.data.decoded_pixels))

    def _shares(self, images: Sequence[ModelImage]) -> npt.NDArray[np.floating[Any]]:
        """The probabilities (B, classes) of prepared images."""
        pixels = torch.stack([image.pixels for image in images])
        given: Any = self._input.normalised(pixels).numpy()
        if self.columns is not None:
            lacking = np.full(self.columns.size, np.nan, np.float32)
            rows = [lacking if one.features is None else one.features for one in images]
            given = FusedInput(given, np.stack(rows))
        logits = self.logits(given)
        shares: npt.NDArray[np.floating[Any]] = softmax(logits.astype(np.float64), axis=1)
        return shares

    def logits(self, given: Any) -> npt.NDArray[np.float32]:
        """The logits (B, classes) of normalised images (B, 3, H, W), with any features."""
        outputs: list[npt.NDArray[np.float32]] = self.session.run([OUTPUT], self.fed(INPUT, given))
        return outputs[0]

    def logits_of(self, batches: Iterable[Any]) -> npt.NDArray[np.float32]:
        """The logits (N, classes) of all batches, in order."""
        return np.concatenate([self.logits(batch) for batch in batches])


class RgbClassifier(ExportedModel):
    """Runs a model that prepares RGB images itself, such as model.uint8.onnx, on a CPU."""

    TAKES: ClassVar[str] = IMAGES

    def probabilities(
        self, pixels: RgbImage, features: FloatArray | None = None
    ) -> npt.NDArray[np.floating[Any]]:
        """The probabilities (classes,) of a decoded image of any size, with any features."""
        given: Any = pixels[None]
        if features is not None:
            given = FusedInput(given, features[None])
        probabilities: npt.NDArray[np.floating[Any]] = self.of_batch(given)[0]
        return probabilities

    def of_batch(self, given: Any) -> npt.NDArray[np.float32]:
        """The probabilities (B, classes) of images (B, H, W, 3) of one size, with any features."""
        outputs: list[npt.NDArray[np.float32]] = self.session.run(
            [PROBABILITIES], self.fed(IMAGES, given)
        )
        return outputs[0]


def open_session(path: Path, num_threads: int | None = None) -> onnxruntime.InferenceSession:
    """ONNX Runtime's session of a file, on a CPU; raises DataError if it is no ONNX model."""
    if not path.is_file():
        raise DataError(f"no such file: {path}; expected an exported model.onnx")
    onnxruntime.set_default_logger_severity(3)
    try:
        return onnxruntime.InferenceSession(
            str(path), _options(num_threads), providers=["CPUExecutionProvider"]
        )
    except (Fail, InvalidArgument, InvalidGraph, InvalidProtobuf, NotImplemented) as error:
        from sgformer.export.onnx_file import missing_data  # imports onnx

        missing = missing_data(path)
        if missing is not None:
            raise DataError(f"{path} keeps its weights in {missing}, which is not there") from None
        raise DataError(f"not an ONNX model: {path}: {str(error).splitlines()[0]}") from None


def _options(num_threads: int | None) -> onnxruntime.SessionOptions:
    """ONNX Runtime's own options; where this process may not use all CPUs, with fewer threads."""
    options, num_cpus = onnxruntime.SessionOptions(), num_threads or usable_cpus()
    if num_cpus < (os.cpu_count() or 1):
        options.intra_op_num_threads = num_cpus
    return options
