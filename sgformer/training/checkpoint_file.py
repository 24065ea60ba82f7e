"""Reads the file of a checkpoint: safetensors with a JSON header. No code in it is executed."""

import json
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open

from sgformer.errors import CheckpointError

FORMAT_VERSION: Final = 3


def load_checkpoint(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """A checkpoint's tensors by name, on the CPU, and its metadata.

    Raises:
        CheckpointError: The file is missing, damaged, or was not written by this program.
    """
    return _read(path, with_tensors=True)


def read_metadata(path: Path) -> dict[str, Any]:
    """A checkpoint's metadata, without reading its tensors.

    Raises:
        CheckpointError: See `load_checkpoint`.
    """
    return _read(path, with_tensors=False)[1]


def _read(path: Path, *, with_tensors: bool) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("sgformer", "null"))
            names = file.keys() if with_tensors else ()
            tensors = {name: file.get_tensor(name) for name in names}
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise CheckpointError(f"cannot read checkpoint {path}: {error}") from None
    if not isinstance(header, dict) or header.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} is not a checkpoint of this program in format {FORMAT_VERSION}"
        )
    return tensors, header
