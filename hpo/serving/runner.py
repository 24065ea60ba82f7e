"""Runs an exported model on batches of images from outside; knows no Ray and no HTTP."""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sgformer.errors import DataError

if TYPE_CHECKING:
    from sgformer.export.onnx_classifier import ModelImage, Prediction
    from sgformer.features.columns import FloatArray

# PIL's names of the formats that are read; PIL may know the header of others, which OpenCV may
# read in ways of its own.
FORMATS: Final = ("AVIF", "BMP", "GIF", "JPEG", "MPO", "PNG", "PPM", "TIFF", "WEBP")
SIZES: Final = (1, 2, 4, 8, 16, 32, 64)
SECONDS_OF_A_SIZE: Final = 0.3


@dataclass(frozen=True)
class Question:
    """An image file's bytes, how many classes the answer has, and any features of the image."""

    content: bytes
    top: int
    features: Any = None


@dataclass(frozen=True)
class Answer:
    """The likeliest classes with their probabilities, and what is odd in the image."""

    classes: tuple[tuple[str, float], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Refusal:
    """Why an image has no answer, with the HTTP status."""

    status: int
    reason: str


class Runner:
    """A model, with the threads that decode images and compute.

    Args:
        model: The exported model.
        num_threads: Threads that decode, and that compute.
        most_pixels: Larger images are refused before they are decoded.

    Raises:
        DataError: The file is not an exported model.
    """

    def __init__(self, model: Path, num_threads: int, most_pixels: int) -> None:
        from sgformer.export.onnx_classifier import OnnxClassifier
        from sgformer.features.encoders import encoder_of_model
        from sgformer.images.set_decoder import in_words

        self._classifier = OnnxClassifier(model, num_threads)
        self._words = in_words(self._classifier.rules)
        columns = self._classifier.columns
        name = columns.encoder if columns else None
        self._encoder = None if name is None else encoder_of_model(name)
        self._most_pixels = most_pixels
        self._pool = ThreadPoolExecutor(num_threads)
        self._computing = threading.Lock()

    @property
    def num_classes(self) -> int:
        return len(self._classifier.classes)

    def classify(self, questions: Sequence[Question]) -> list[Answer | Refusal]:
        """The answers in order; all images that can be read are computed as one batch."""
        found = list(self._pool.map(self._read, questions))
        images = [image for image in found if not isinstance(image, Refusal)]
        # Another batch is decoded meanwhile.
        with self._computing:
            predictions = iter(self._classifier.predictions(images) if images else [])
        return [
            image if isinstance(image, Refusal) else self._answer(next(predictions), question.top)
            for question, image in zip(questions, found, strict=True)
        ]

    def seconds_of_batches(self) -> dict[int, float]:
        """The fastest run of each size of batch, on black images; takes some seconds in all."""
        return dict(self._time_sizes())

    def _time_sizes(self) -> Iterator[tuple[int, float]]:
        import torch

        from sgformer.export.onnx_classifier import ModelImage

        side = self._classifier.data.image_size
        image = ModelImage(torch.zeros(3, side, side, dtype=torch.uint8), frozenset())
        for size in SIZES:
            batch = [image] * size
            self._classifier.predictions(batch)  # ONNX Runtime plans its memory
            end = time.perf_counter() + SECONDS_OF_A_SIZE
            fastest = float("inf")
            while True:
                start = time.perf_counter()
                self._classifier.predictions(batch)
                now = time.perf_counter()
                fastest = min(fastest, now - start)
                if now > end:
                    break
            yield size, fastest
            if fastest > SECONDS_OF_A_SIZE:
                break  # a larger one takes longer than anybody waits

    def _read(self, question: Question) -> "ModelImage | Refusal":
        content = question.content
        try:
            features = self._features(question.features)
            if isinstance(features, Refusal):
                return features
            return (
                self._refusal(content) or self._classifier.read(content, features) or _UNREADABLE
            )
        except Exception:  # a border that must not fall: whatever a file holds, it is refused
            logging.getLogger(__name__).exception("an image was refused after an error")
            return _UNREADABLE

    def _features(self, values: Any) -> "FloatArray | Refusal | None":
        """The features that a request tells; None: it tells none."""
        columns = self._classifier.columns
        if values is None:
            return None
        if columns is None:
            return Refusal(400, "the model takes images alone; leave the features out")
        try:
            return columns.encoded_values(values, self._encoder)
        except DataError as error:
            return Refusal(400, str(error))

    def _refusal(self, content: bytes) -> Refusal | None:
        from sgformer.images.headers import read_header

        header = read_header(content)
        width, height = header.size
        if header.format not in FORMATS:
            return Refusal(400, f"not an image: none of {', '.join(FORMATS)}")
        if width * height > self._most_pixels:
            return Refusal(
                413,
                f"the image has {width} x {height} pixels; at most {self._most_pixels} are "
                "taken (--max-pixels)",
            )
        return None

    def _answer(self, prediction: "Prediction", top: int) -> Answer:
        notes = tuple(kind for trait, kind in self._words.items() if trait in prediction.traits)
        return Answer(tuple(prediction.classes.items())[:top], notes)


_UNREADABLE: Final = Refusal(400, "cannot read the image: it is damaged or cut off")
