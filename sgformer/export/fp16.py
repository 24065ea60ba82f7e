"""Exports a model with half-precision weights and products, for GPUs."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import onnx

from sgformer.export.judge import Judge, TradeOff

# Sums over many values, exponentials and orders lose too much; they stay in float32.
IN_FLOAT32: Final = (
    "GatherElements",
    "InstanceNormalization",
    "LayerNormalization",
    "ReduceMean",
    "ReduceSum",
    "Softmax",
    "TopK",
)


@dataclass(frozen=True)
class Fp16Report:
    """What was found of a model in half precision, as stored in export.json.

    Attributes:
        delivered: Whether the file is delivered.
        reason: Why, or why not.
        num_images: Val images that were classified.
        float32_bytes: Size of the float32 model.
        trade_off: What the model gains and loses. Its latency is that of ONNX Runtime on a CPU,
            which computes half precision in float32; it says nothing of a GPU.
    """

    delivered: bool
    reason: str
    num_images: int
    float32_bytes: int
    trade_off: TradeOff

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def export_fp16(model: Path, path: Path, judge: Judge, max_top1_drop: float) -> Fp16Report:
    """Writes the model in half precision, if it keeps its accuracy; input and output stay float32.

    Args:
        model: The exported float32 model, proven.
        path: The file; not written if it loses too much.
        judge: Compares it with the float32 model.
        max_top1_drop: The share of val images that may be lost, 0..1.
    """
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    proto = convert_float_to_float16(
        onnx.load(model),
        keep_io_types=True,
        op_block_list=[*DEFAULT_OP_BLOCK_LIST, *IN_FLOAT32],
    )
    part = path.with_name(f".{path.name}")
    try:
        onnx.save(proto, part)
        found = judge.judged(part)
        delivered = found.drop.mean <= max_top1_drop
        if delivered:
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    share = found.bytes / judge.float32_bytes
    lost = f"top-1 on val lower by {found.drop.mean:.4f}"
    reason = (
        f"{share:.2f} of the bytes, {lost}; its speed counts on a GPU and was not measured"
        if delivered
        else f"{lost}; export.max_top1_drop allows {max_top1_drop}"
    )
    return Fp16Report(delivered, reason, len(judge.labels), judge.float32_bytes, found)
