"""Costs of an architecture: parameters, bytes and latency of its file, without training it."""

import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import nn

from sgformer.config import TrainConfig
from sgformer.export.int8_graph import Quantizer
from sgformer.export.latency import latencies
from sgformer.export.onnx_classifier import OnnxClassifier
from sgformer.export.onnx_export import export_onnx
from sgformer.export.onnx_file import data_file, size_of
from sgformer.model.build import create_model

Int8 = bool | Literal["smallest"]  # as in the search file's section export
CALIBRATION_IMAGES: Final = 4  # of noise: ranges change neither bytes nor latency


@dataclass(frozen=True)
class FileCosts:
    """Costs of an architecture's exported file.

    Attributes:
        format: 'onnx' or 'int8'.
        bytes: Its size; that of a trained model differs by the metadata, such as class names.
        latency_ms: Median milliseconds for a batch of one image, in ONNX Runtime on this
            machine's CPU; None: not measured.
    """

    format: str
    bytes: int
    latency_ms: float | None = None


def num_parameters(config: TrainConfig, num_classes: int) -> int:
    """Number of parameters of the configured model; no memory is allocated for them."""
    with torch.device("meta"):
        model = create_model(config, num_classes)
    return sum(parameter.numel() for parameter in model.parameters())


def export_untrained(
    config: TrainConfig, num_classes: int, path: Path, *, int8: Int8 = False
) -> tuple[Path, ...]:
    """Writes the configured model, with untrained weights, to ONNX files.

    Args:
        config: The configuration.
        num_classes: The number of classes.
        path: The file in float32.
        int8: Whether one in 8-bit integers is written beside it; none is of a model of over 2 GiB.

    Returns:
        The files that were written, that in float32 last.
    """
    config = config.resolved()
    model = create_model(config, num_classes)
    _make_different(model)
    export_onnx(model, path, config, tuple(str(i) for i in range(num_classes)))
    if not int8 or data_file(path).exists():
        return (path,)
    images = _noise(config, CALIBRATION_IMAGES)
    with tempfile.TemporaryDirectory() as folder:
        quantizer = Quantizer(path, lambda: [images], Path(folder))
        onnx.save(quantizer.model(), _int8_file(path))
    return (_int8_file(path), path)


def measure_file(
    config: TrainConfig,
    num_classes: int,
    exported: Path | None = None,
    *,
    int8: Int8 = False,
    is_timed: bool = True,
) -> FileCosts:
    """Costs of the file that a trained model of this configuration would be delivered in.

    The measurements are those of export.json, with untrained weights, which change neither bytes
    nor latency. If `int8` is asked for, they are of the file in 8-bit integers, with all layers
    quantized, where it is smaller and, as `export_int8` asks for, faster here; else of the one in
    float32.

    Args:
        config: The configuration.
        num_classes: The number of classes.
        exported: The float32 file that `export_untrained` wrote for this configuration; None: it
            is written here.
        int8: Whether 8-bit integers are asked for; 'smallest': even where they are slower.
        is_timed: Whether the latency is asked for.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = exported or Path(folder) / "model.onnx"
        if exported is None:
            export_untrained(config, num_classes, path, int8=int8)
        files = {"onnx": path}
        small = _int8_file(path)
        if int8 and small.exists() and size_of(small) < size_of(path):
            files = {"int8": small} if int8 == "smallest" else files | {"int8": small}
        times: dict[str, float] = {}
        if is_timed or len(files) > 1:
            images = _noise(config.resolved(), 1)
            runs = {n: partial(OnnxClassifier(f).logits, images) for n, f in files.items()}
            times = {name: found.p50 for name, found in latencies(runs).items()}
        best = min(files, key=lambda name: times.get(name, 0.0))
        return FileCosts(best, size_of(files[best]), times[best] if is_timed else None)


def _int8_file(path: Path) -> Path:
    return path.with_name(f"{path.stem}.int8{path.suffix}")


def _noise(config: TrainConfig, num: int) -> npt.NDArray[np.float32]:
    """So many images (N, 3, H, W) of the configuration's size."""
    side = config.data.image_size
    return np.random.default_rng(0).standard_normal((num, 3, side, side), dtype=np.float32)


@torch.no_grad()
def _make_different(model: nn.Module) -> None:
    """Adds a little to weights that are all alike, as zeros, of which a file stores one of each.

    Those of a trained model differ.
    """
    generator = torch.Generator().manual_seed(0)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point() and tensor.numel() and tensor.min() == tensor.max():
            tensor += 1e-3 * torch.rand(tensor.shape, generator=generator)
