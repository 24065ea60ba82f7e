"""The proof that an exported file computes the trained model's logits, and its measurements."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import nn

from sgformer.config import TrainConfig
from sgformer.data.fused_input import FusedInput, answer, each, variants
from sgformer.data.image_data import ImageData, Samples
from sgformer.data.model_input import eval_batches
from sgformer.errors import ExportError
from sgformer.export.latency import BATCH_SIZES as LATENCY_BATCH_SIZES
from sgformer.export.latency import Latency, latencies, repeated
from sgformer.export.onnx_classifier import OnnxClassifier
from sgformer.export.onnx_file import facts
from sgformer.model import SGFormer
from sgformer.training.counts import Counts

BATCH_SIZES: Final = (1, 3, 8)
NUM_PARITY_IMAGES: Final = 64
MIN_USUAL_SHARE: Final = 0.9
MIN_ARGMAX_AGREEMENT: Final = 0.98


@dataclass(frozen=True)
class Tolerance:
    """The largest differences of logits, in standard deviations of the logits.

    Attributes:
        usual: For at least `MIN_USUAL_SHARE` of the images.
        every: For every image.
    """

    usual: float
    every: float


# If two tokens' significances are nearly equal, another backend may swap the two tokens, which
# changes that image's logits. Source: measured on 24 photographs at 224 pixels, untrained: b0 up
# to 0.0004, b2 up to 0.0005, the released model up to 0.02.
OF_SG_FORMER: Final = Tolerance(usual=0.01, every=0.2)
# Other models sort nothing, so that only rounding differs. Source: measured on 60 digits after
# three epochs at 32 pixels, ten families up to 0.000003; on noise at 224 pixels, untrained,
# resnet50, efficientnet_b0, vit_small, convnext_tiny and mobilenetv3_large up to 0.000004.
OF_OTHERS: Final = Tolerance(usual=0.001, every=0.001)


@dataclass(frozen=True)
class Parity:
    """How well ONNX Runtime and PyTorch agree on real images.

    Attributes:
        max_abs_diff: The largest absolute difference of any logit.
        argmax_agreement: Share of images for which both predict the same class, 0..1; the lowest
            share of all batch sizes.
        batch_sizes: The batch sizes that were tried.
        num_images: Number of images.
    """

    max_abs_diff: float
    argmax_agreement: float
    batch_sizes: tuple[int, ...]
    num_images: int


@dataclass(frozen=True)
class ExportReport:
    """Measurements of an exported file, as stored in export.json.

    Attributes:
        bytes: Size of the file, with that of its weights if they lie in a file of their own.
        sha256: Hash of each file.
        opset: Version of ONNX's operator set.
        input: Name, shape and type of the model's input; a shape has names for dynamic axes.
        output: The same of its output.
        parity: Agreement with PyTorch.
        top1: Share of the val images tried that ONNX Runtime classifies correctly, 0..1.
        num_images: Number of val images tried.
        latency_ms: Latency by batch size.
        features: Name, shape and type of the input that takes features; None: it takes none.
    """

    bytes: int
    sha256: dict[str, str]
    opset: int
    input: dict[str, Any]
    output: dict[str, Any]
    parity: Parity
    top1: float
    num_images: int
    latency_ms: dict[str, Latency]
    features: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        values = asdict(self)
        if self.features is None:
            del values["features"]
        return values


def prove_export(
    model: nn.Module, path: Path, config: TrainConfig, data: ImageData, num_images: int
) -> ExportReport:
    """Compares the file with the model on val images, and measures its accuracy and latency.

    Args:
        model: The trained model.
        path: The exported file.
        config: The config of the training.
        data: The images.
        num_images: How many val images the file classifies, at most; the share of each class is
            that in val.

    Raises:
        ExportError: The file does not compute the model's logits.
    """
    onnx.checker.check_model(path, full_check=True)
    classifier = OnnxClassifier(path)
    samples = spread_over_classes(data.samples("val"), num_images)
    counts = Counts(len(data.classes))
    for batch, labels in eval_batches(data, samples, config.data, NUM_PARITY_IMAGES):
        logits = classifier.logits(each(batch, torch.Tensor.numpy))
        counts.add(torch.from_numpy(logits), labels)
    compared = spread_over_classes(samples, NUM_PARITY_IMAGES)
    given = next(eval_batches(data, compared, config.data, NUM_PARITY_IMAGES))[0]
    images: Any = each(given, torch.Tensor.numpy)
    return ExportReport(
        **facts(path),
        parity=check_parity(model, classifier, _with_each_alone(images)),
        top1=counts.scores().top1,
        num_images=len(samples),
        latency_ms={
            str(n): measure_latency(classifier.logits, each(images, partial(repeated, num=n)))
            for n in LATENCY_BATCH_SIZES
        },
    )


def spread_over_classes(samples: Samples, num_images: int) -> Samples:
    """At most so many samples, in order, chosen at random, of each class in proportion."""
    if num_images >= len(samples):
        return samples
    order = np.random.default_rng(0).permutation(len(samples))
    by_class = order[np.argsort(samples[order, 1], kind="stable")]
    chosen = by_class[np.arange(num_images) * len(samples) // num_images]
    return samples[np.sort(chosen)]


def _with_each_alone(given: Any) -> Any:
    """Images; those with features also as images alone and as features alone."""
    if not isinstance(given, FusedInput):
        return given
    return FusedInput(*map(np.concatenate, zip(*variants(given), strict=True)))


@torch.inference_mode()
def check_parity(model: nn.Module, classifier: OnnxClassifier, images: Any) -> Parity:
    """Compares the logits of ONNX Runtime and PyTorch at several batch sizes.

    Args:
        model: The trained model.
        classifier: The exported file.
        images: Normalised images (N, 3, H, W), with any features.

    Raises:
        ExportError: The logits differ by more than the model's family allows, or too many images
            get another class.
    """
    expected = answer(model.cpu().eval(), each(images, torch.from_numpy)).numpy()
    diffs, agreements = [], []
    for batch_size in BATCH_SIZES:
        starts = range(0, len(expected), batch_size)
        actual = classifier.logits_of(_part(images, start, batch_size) for start in starts)
        diffs.append(np.abs(actual - expected).max(axis=1))
        agreements.append((actual.argmax(1) == expected.argmax(1)).mean())
    diff, agreement = np.concatenate(diffs), float(min(agreements))
    scale = float(expected.std())
    sorts_tokens = any(isinstance(part, SGFormer) for part in model.modules())
    allowed = OF_SG_FORMER if sorts_tokens else OF_OTHERS
    if (
        diff.max() > allowed.every * scale
        or (diff <= allowed.usual * scale).mean() < MIN_USUAL_SHARE
        or agreement < MIN_ARGMAX_AGREEMENT
    ):
        raise ExportError(
            f"the exported model disagrees with PyTorch: logits differ by up to {diff.max():.2g}, "
            f"classes agree on {agreement:.1%} of {len(expected)} images"
        )
    return Parity(float(diff.max()), agreement, BATCH_SIZES, len(expected))


def _part(given: Any, start: int, num: int) -> Any:
    return each(given, lambda array: array[start : start + num])


def measure_latency(run: Callable[[npt.NDArray[Any]], object], batch: npt.NDArray[Any]) -> Latency:
    """The latency of a batch; see `latencies`."""
    return latencies({"model": lambda: run(batch)})["model"]
