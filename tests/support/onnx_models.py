"""Writes an ONNX classifier as this program exports it, without a training."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from sgformer.data_config import DataConfig
from sgformer.export.names import INPUT, METADATA_KEY, OUTPUT


def write_classifier(
    path: Path, classes: Sequence[str], metadata: dict[str, Any] | None = None, **data: Any
) -> Path:
    """Writes a classifier of 32-pixel images by their mean colour.

    Args:
        path: The file.
        classes: Class names.
        metadata: Further metadata.
        data: Settings of the images that differ from the default.
    """
    size = len(classes)
    rng = np.random.default_rng(0)
    weights = helper.make_tensor(
        "weights", TensorProto.FLOAT, (3, size), rng.standard_normal(3 * size).tolist()
    )
    axes = helper.make_tensor("axes", TensorProto.INT64, (2,), [2, 3])
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", [INPUT, "axes"], ["mean"], keepdims=0),
            helper.make_node("MatMul", ["mean", "weights"], [OUTPUT]),
        ],
        "classifier",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ("batch", 3, 32, 32))],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ("batch", size))],
        [weights, axes],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    config = DataConfig.model_validate({"image_size": 32, "crop_pct": 1.0} | data)
    values = {"classes": list(classes), "data": config.model_dump(mode="json")}
    helper.set_model_props(made, {METADATA_KEY: json.dumps(values | (metadata or {}))})
    onnx.save(made, path)
    return path
