"""Model files: ONNX files, of which the largest have their weights in a file beside them."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import onnx
from google.protobuf.message import DecodeError

from sgformer.export.names import METADATA_KEY

# protobuf reads no message of 2 GiB; the graph itself takes less than the rest.
MOST_BYTES_OF_WEIGHTS: Final = 2**31 - 2**26
LEAST_BYTES_BESIDE: Final = 1024  # smaller tensors stay in the file


def save(model: onnx.ModelProto, path: Path, metadata: Mapping[str, Any]) -> None:
    """Writes a model with its metadata; large weights go into PATH.data beside it.

    The file refers to that other file by its name: the two are moved and renamed together.
    """
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(metadata)})
    data = data_file(path)
    data.unlink(missing_ok=True)  # onnx would append to it
    if sum(len(tensor.raw_data) for tensor in model.graph.initializer) <= MOST_BYTES_OF_WEIGHTS:
        onnx.save(model, path)
        return
    onnx.save(
        model,
        path,
        save_as_external_data=True,
        location=data.name,
        size_threshold=LEAST_BYTES_BESIDE,
    )


def data_file(path: Path) -> Path:
    """Where the weights of a model of more than 2 GiB lie: model.onnx.data for model.onnx."""
    return path.with_name(f"{path.name}.data")


def files_of(path: Path) -> tuple[Path, ...]:
    """A model's files, of which the last one to be moved is the model itself."""
    data = path.with_suffix(".bin") if path.suffix == ".xml" else data_file(path)
    return (data, path) if data.exists() else (path,)


def size_of(path: Path) -> int:
    """The bytes of a model's files."""
    return sum(file.stat().st_size for file in files_of(path))


def move(path: Path, folder: Path) -> None:
    """Moves a model's files into another folder, in the place of others of the same name."""
    files = files_of(path)
    if len(files) == 1:
        data_file(folder / path.name).unlink(missing_ok=True)
    for file in files:
        file.replace(folder / file.name)


def missing_data(path: Path) -> Path | None:
    """The file of weights that a model needs and that is not there; None: nothing is missing."""
    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError:
        return None
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            data = path.parent / str(entry.value)
            if entry.key == "location" and not data.exists():
                return data
    return None


def facts(path: Path) -> dict[str, Any]:
    """Bytes, SHA-256 of each file, opset, input and output, as stored in export.json.

    A model that takes features has them under `features`.
    """
    model = onnx.load(path, load_external_data=False)
    return {
        "bytes": size_of(path),
        "sha256": {file.name: _sha256(file) for file in files_of(path)},
        "opset": next(o.version for o in model.opset_import if not o.domain),
        "input": _described(model.graph.input[0]),
        "output": _described(model.graph.output[0]),
        **{value.name: _described(value) for value in model.graph.input[1:]},
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _described(value: onnx.ValueInfoProto) -> dict[str, Any]:
    kind = value.type.tensor_type
    return {
        "name": value.name,
        "shape": [dim.dim_param or dim.dim_value for dim in kind.shape.dim],
        "dtype": str(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)),
    }
