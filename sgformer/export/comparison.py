"""Compares the files of a model: size, accuracy, agreement and speed, one after another."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from sgformer.data.fused_input import Given, answer, each
from sgformer.data.image_data import ImageData, Samples
from sgformer.data_config import DataConfig
from sgformer.export.latency import BATCH_SIZES, Latency, latencies, repeated
from sgformer.export.on_images import decoded, logits_on, normalised
from sgformer.export.onnx_classifier import ExportedModel, OnnxClassifier, RgbClassifier
from sgformer.export.onnx_file import size_of
from sgformer.export.opening import open_exported
from sgformer.export.proof import spread_over_classes
from sgformer.intervals import share_interval

PYTORCH: Final = "pytorch"


@dataclass(frozen=True)
class ComparedFile:
    """What was measured of a file of a model.

    Attributes:
        bytes: Its size.
        top1: Share of val images that it classifies correctly, 0..1.
        low, high: The 95 % interval of that share.
        class_agreement: Share of images for which it names the class that the first file names.
        latency_ms: By batch size.
        images_per_second: In batches of 8, by the median.
    """

    bytes: int
    top1: float
    low: float
    high: float
    class_agreement: float
    latency_ms: dict[str, Latency]
    images_per_second: float


@dataclass(frozen=True)
class _Contender:
    bytes: int
    classes: npt.NDArray[np.int64]
    runs: Mapping[int, Callable[[], object]]


def compare_files(
    files: Mapping[str, Path],
    data: ImageData,
    num_images: int,
    model: nn.Module | None = None,
    checkpoint: Path | None = None,
) -> dict[str, ComparedFile]:
    """Measures files of one model on the same val images; latencies by turns.

    Args:
        files: Exported files, by the names of their formats; at least one.
        data: The images, decoded as the model needs them.
        num_images: How many val images are classified, at most.
        model: The trained model, which then comes first, as PyTorch runs it.
        checkpoint: The model's file, if there is a model.

    Raises:
        DataError: A file is no exported model, or an image cannot be read.
    """
    samples = spread_over_classes(data.samples("val"), num_images)
    opened = {name: open_exported(path) for name, path in files.items()}
    contenders = {}
    if model is not None and checkpoint is not None:
        config = next(iter(opened.values())).data
        size = checkpoint.stat().st_size
        contenders[PYTORCH] = _of_pytorch(model.cpu().eval(), size, data, samples, config)
    for name, classifier in opened.items():
        size = size_of(files[name])
        contenders[name] = _of_file(classifier, size, data, samples)
    times = {
        n: latencies({name: found.runs[n] for name, found in contenders.items()})
        for n in BATCH_SIZES
    }
    first = next(iter(contenders.values())).classes
    labels = samples[:, 1]
    return {
        name: _compared(found, labels, first, {n: times[n][name] for n in BATCH_SIZES})
        for name, found in contenders.items()
    }


def _compared(
    found: _Contender,
    labels: npt.NDArray[np.int64],
    first: npt.NDArray[np.int64],
    times: Mapping[int, Latency],
) -> ComparedFile:
    top1 = float((found.classes == labels).mean())
    low, high = share_interval(top1, len(labels))
    most = max(times)
    return ComparedFile(
        bytes=found.bytes,
        top1=top1,
        low=low,
        high=high,
        class_agreement=float((found.classes == first).mean()),
        latency_ms={str(n): latency for n, latency in times.items()},
        images_per_second=round(1e3 * most / times[most].p50, 1),
    )


def _of_pytorch(
    model: nn.Module, size: int, data: ImageData, samples: Samples, config: DataConfig
) -> _Contender:
    @torch.inference_mode()
    def run(given: Given) -> torch.Tensor:
        return answer(model, given)

    batches = (each(given, torch.from_numpy) for given in normalised(data, samples, config))
    classes = np.concatenate([run(given).argmax(1).numpy() for given in batches])
    batch = each(_batch(data, samples, config), torch.from_numpy)
    return _Contender(size, classes, _runs(run, batch))


def _of_file(
    classifier: ExportedModel, size: int, data: ImageData, samples: Samples
) -> _Contender:
    classes = np.concatenate([each.argmax(1) for each in logits_on(classifier, data, samples)])
    if isinstance(classifier, OnnxClassifier):
        return _Contender(
            size, classes, _runs(classifier.logits, _batch(data, samples, classifier.data))
        )
    assert isinstance(classifier, RgbClassifier)
    pixels = np.stack([decoded(classifier, data, int(samples[0, 0]))] * max(BATCH_SIZES))
    return _Contender(size, classes, _runs(classifier.of_batch, pixels))


def _runs(run: Callable[[Any], object], batch: Any) -> dict[int, Callable[[], object]]:
    """By batch size, a function that computes that many images of a batch."""
    return {n: partial(run, each(batch, itemgetter(slice(n)))) for n in BATCH_SIZES}


def _batch(data: ImageData, samples: Samples, config: DataConfig) -> Any:
    """As many normalised images (B, 3, H, W) as the largest batch has; few images repeat."""
    most = max(BATCH_SIZES)
    return each(next(normalised(data, samples, config, most)), partial(repeated, num=most))
