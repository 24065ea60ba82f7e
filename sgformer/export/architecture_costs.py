"""Costs of an architecture: its parameters and its latency, without training it."""

import tempfile
from pathlib import Path

import numpy as np
import torch

from sgformer.config import TrainConfig
from sgformer.export.onnx_classifier import OnnxClassifier
from sgformer.export.onnx_export import export_onnx
from sgformer.export.proof import measure_latency
from sgformer.model.build import create_model


def num_parameters(config: TrainConfig, num_classes: int) -> int:
    """Number of parameters of the configured model; no memory is allocated for them."""
    with torch.device("meta"):
        model = create_model(config, num_classes)
    return sum(parameter.numel() for parameter in model.parameters())


def export_untrained(config: TrainConfig, num_classes: int, path: Path) -> None:
    """Writes the configured model, with untrained weights, to an ONNX file."""
    config = config.resolved()
    classes = tuple(str(i) for i in range(num_classes))
    export_onnx(create_model(config, num_classes), path, config, classes)


def measure_latency_ms(
    config: TrainConfig, num_classes: int, exported: Path | None = None
) -> float:
    """Median milliseconds for a batch of one image, in ONNX Runtime on this machine's CPU.

    The measurement is that of export.json, with untrained weights, which do not change latency.

    Args:
        config: The configuration.
        num_classes: The number of classes.
        exported: The file that `export_untrained` wrote for this configuration; None: it is
            written here.
    """
    side = config.data.image_size
    images = np.random.default_rng(0).standard_normal((1, 3, side, side), dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = exported or Path(folder) / "model.onnx"
        if exported is None:
            export_untrained(config, num_classes, path)
        return measure_latency(OnnxClassifier(path).logits, images).p50
