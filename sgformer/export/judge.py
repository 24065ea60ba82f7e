"""Compares a model in a smaller format with the float32 model that it was made from."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sgformer.config import TrainConfig
from sgformer.data.fused_input import each
from sgformer.data.image_data import ImageData
from sgformer.export.latency import BATCH_SIZES, Latency, latencies, repeated
from sgformer.export.on_images import logits_on, normalised
from sgformer.export.onnx_classifier import OnnxClassifier
from sgformer.export.onnx_file import size_of
from sgformer.export.opening import open_normalised
from sgformer.export.proof import spread_over_classes
from sgformer.intervals import paired_interval


@dataclass(frozen=True)
class Drop:
    """The top-1 that a model loses against another one on the same images.

    Attributes:
        mean: Share of images, -1..1; below 0 where it gains.
        low, high: The 95 % interval; see `paired_interval`.
    """

    mean: float
    low: float
    high: float


def paired_drop(before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_]) -> Drop:
    """The drop of top-1 from one model to another.

    Args:
        before: (N,) whether the first model classifies each image correctly.
        after: (N,) the same of the second model.
    """
    lost, won = int((before & ~after).sum()), int((after & ~before).sum())
    low, high = paired_interval(won, lost, len(before))
    return Drop((lost - won) / len(before), low, high)


@dataclass(frozen=True)
class TradeOff:
    """What a model in a smaller format gains and loses.

    Attributes:
        float_layers: How many layers stayed in float32, of those that could be smaller.
        bytes: Size of the file.
        top1: Its share of correct val images, 0..1.
        drop: What it loses against the float32 model.
        class_agreement: Share of images for which both name the same class, 0..1.
        max_logit_diff: The largest absolute difference of any logit.
        latency_ms: By batch size.
        float32_latency_ms: That of the float32 model, measured by turns with it.
    """

    float_layers: int
    bytes: int
    top1: float
    drop: Drop
    class_agreement: float
    max_logit_diff: float
    latency_ms: dict[str, Latency]
    float32_latency_ms: dict[str, Latency]

    @property
    def faster(self) -> bool:
        """Whether an image takes less time than with the float32 model."""
        return self.latency_ms["1"].p50 < self.float32_latency_ms["1"].p50


class Judge:
    """Compares models with the float32 one, on val images.

    Args:
        model: The exported float32 model.
        config: The config of the training.
        data: The images.
        num_images: How many val images are classified, at most.

    Attributes:
        float32_bytes: Size of the float32 model.
        labels: (N,) the true classes of the images.
    """

    def __init__(self, model: Path, config: TrainConfig, data: ImageData, num_images: int) -> None:
        self._model = OnnxClassifier(model)
        self.float32_bytes = size_of(model)
        samples = spread_over_classes(data.samples("val"), num_images)
        self._data, self._samples = data, samples
        self.labels = samples[:, 1]
        self._logits = self._logits_of(self._model)
        self._images = next(normalised(data, samples, config.data))

    def judged(self, path: Path, float_layers: int = 0) -> TradeOff:
        """What a model gains and loses; some of its layers may have stayed in float32."""
        classifier = open_normalised(path)
        logits = self._logits_of(classifier)
        classes, before = logits.argmax(1), self._logits.argmax(1)
        correct = classes == self.labels
        times = {str(n): self._latencies(classifier, n) for n in BATCH_SIZES}
        return TradeOff(
            float_layers=float_layers,
            bytes=size_of(path),
            top1=float(correct.mean()),
            drop=paired_drop(before == self.labels, correct),
            class_agreement=float((classes == before).mean()),
            max_logit_diff=float(np.abs(logits - self._logits).max()),
            latency_ms={n: found["other"] for n, found in times.items()},
            float32_latency_ms={n: found["float32"] for n, found in times.items()},
        )

    def drop(self, path: Path) -> Drop:
        """The top-1 that a model loses; nothing is timed."""
        before, after = self._logits, self._logits_of(open_normalised(path))
        return paired_drop(before.argmax(1) == self.labels, after.argmax(1) == self.labels)

    def _logits_of(self, classifier: OnnxClassifier) -> npt.NDArray[np.float32]:
        return np.concatenate(list(logits_on(classifier, self._data, self._samples)))

    def _latencies(self, classifier: OnnxClassifier, batch_size: int) -> dict[str, Latency]:
        batch = each(self._images, partial(repeated, num=batch_size))
        models = {"float32": self._model, "other": classifier}
        return latencies({name: partial(model.logits, batch) for name, model in models.items()})
