"""Exports a model in 8-bit integers where that pays: smaller, faster, nearly as accurate."""

import tempfile
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import onnx
from torch import nn

from sgformer.config import TrainConfig
from sgformer.data.image_data import ImageData, Samples
from sgformer.errors import ExportError
from sgformer.export.int8_graph import Quantizer
from sgformer.export.judge import Judge, TradeOff
from sgformer.export.names import FILES
from sgformer.export.on_images import normalised
from sgformer.export.onnx_export import export_onnx
from sgformer.export.onnx_file import data_file
from sgformer.export.proof import spread_over_classes

CALIBRATION_IMAGES: Final = 512
BATCH_SIZE: Final = 16


@dataclass(frozen=True)
class Int8Report:
    """What was found of a model in 8-bit integers, as stored in export.json.

    Attributes:
        delivered: Whether the file is delivered.
        reason: Why, or why not.
        num_layers: Convolutions, matrix products and linear layers that can be quantized.
        calibration_images: Training images that gave the ranges.
        num_images: Val images that were classified.
        float32_bytes: Size of the float32 model.
        trade_offs: The models that were tried, from all layers quantized on; the last one is what
            is delivered.
        float_layers: The names of that one's layers in float32.
    """

    delivered: bool
    reason: str
    num_layers: int
    calibration_images: int
    num_images: int
    float32_bytes: int
    trade_offs: tuple[TradeOff, ...]
    float_layers: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def export_int8(
    model: Path,
    path: Path,
    config: TrainConfig,
    data: ImageData,
    judge: Judge,
    max_top1_drop: float,
    *,
    even_if_slower: bool = False,
) -> Int8Report:
    """Writes the model in 8-bit integers, if it is smaller, faster here, and nearly as accurate.

    If too much top-1 is lost, the layers in whose outputs quantization makes the most noise stay
    in float32: one, two, four and so on.

    Args:
        model: The exported float32 model, proven.
        path: The file; not written if the model is not worth it.
        config: The config of the training.
        data: The images; those of train calibrate.
        judge: Compares it with the float32 model.
        max_top1_drop: The share of val images that may be lost, 0..1.
        even_if_slower: Whether a smaller model is wanted even if it is slower here.
    """
    calibration = _calibration(data)
    batches = partial(normalised, data, calibration, config.data, BATCH_SIZE)
    tried: list[TradeOff] = []
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        quantizer = Quantizer(model, batches, Path(folder))
        noisiest, num_float = quantizer.noisiest, 0
        part = Path(folder) / "part.onnx"
        while True:
            onnx.save(quantizer.model(noisiest[:num_float]), part)
            tried.append(judge.judged(part, num_float))
            following = max(1, 2 * num_float)
            if tried[-1].drop.mean <= max_top1_drop or following > len(noisiest) // 2:
                break
            num_float = following
        reason = _reason_against(tried[-1], judge.float32_bytes, max_top1_drop, even_if_slower)
        if reason is None:
            part.replace(path)
    return Int8Report(
        delivered=reason is None,
        reason=reason or _reason_for(tried[-1], judge.float32_bytes),
        num_layers=len(noisiest),
        calibration_images=len(calibration),
        num_images=len(judge.labels),
        float32_bytes=judge.float32_bytes,
        trade_offs=tuple(tried),
        float_layers=tuple(noisiest[:num_float]),
    )


def int8_top1_drop(
    model: nn.Module, config: TrainConfig, data: ImageData, num_images: int
) -> float:
    """The share of val images, -1..1, that a trained model loses with all layers quantized.

    It is what `export_int8` finds of the model before it puts layers back into float32.

    Args:
        model: The model.
        config: The config of the training.
        data: The images; those of train calibrate.
        num_images: How many val images are classified, at most.

    Raises:
        ExportError: PyTorch cannot export the model, or it is too large for 8-bit integers.
    """
    with tempfile.TemporaryDirectory(prefix="sgformer-export-") as folder:
        path, small = (Path(folder) / FILES[name] for name in ("onnx", "int8"))
        export_onnx(model, path, config, data.classes)
        refuse_large(path)
        batches = partial(normalised, data, _calibration(data), config.data, BATCH_SIZE)
        onnx.save(Quantizer(path, batches, Path(folder)).model(), small)
        return Judge(path, config, data, num_images).drop(small).mean


def refuse_large(model: Path) -> None:
    """Raises ExportError if the weights lie in a file of their own: that is not built yet."""
    if data_file(model).exists():
        raise ExportError("a model of over 2 GiB is written as onnx, openvino or tensorrt only")


def _calibration(data: ImageData) -> Samples:
    return spread_over_classes(data.samples("train"), CALIBRATION_IMAGES)


def _reason_against(
    found: TradeOff, float32_bytes: int, max_top1_drop: float, even_if_slower: bool
) -> str | None:
    if found.drop.mean > max_top1_drop:
        return (
            f"it loses {found.drop.mean:.4f} of top-1 on val, even with {found.float_layers} "
            f"layers in float32; export.max_top1_drop allows {max_top1_drop}"
        )
    if found.bytes >= float32_bytes:
        return f"it is no smaller: {found.bytes:,} bytes, in float32 {float32_bytes:,}"
    if not (found.faster or even_if_slower):
        ours, theirs = found.latency_ms["1"].p50, found.float32_latency_ms["1"].p50
        return (
            f"it is no faster here: {ours:.1f} ms an image, in float32 {theirs:.1f} ms; "
            "export.int8: smallest delivers it all the same"
        )
    return None


def _reason_for(found: TradeOff, float32_bytes: int) -> str:
    speed = found.float32_latency_ms["1"].p50 / found.latency_ms["1"].p50
    return (
        f"{found.bytes / float32_bytes:.2f} of the bytes, {speed:.2f} times as fast, "
        f"top-1 on val lower by {found.drop.mean:.4f} (95 % interval {found.drop.low:.4f} to "
        f"{found.drop.high:.4f})"
    )
