"""Reads files of weights: safetensors, or torch's own files without running any code in them."""

import argparse
import codecs
import json
import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sgformer.errors import CheckpointError
from sgformer.model.official import convert_state_dict, is_released, unwrap

# The files of weights in the folders that this program writes, the first that exists counts: in
# best/ and front/N, in a run's folder, in a trial's folder.
IN_FOLDERS: Final = ("checkpoint.safetensors", "best/checkpoint.safetensors", "best.safetensors")
# How files begin that people take for weights.
OTHERS: Final = {
    b"<": "a web page, as a download link gives it; download the file itself",
    b"version https://git-lfs": "a pointer of Git LFS; `git lfs pull` gets the file itself",
    b"PAR1": "a Parquet file",
    b"\x89HDF": "an HDF5 file of Keras; export a state dict with PyTorch",
}
HEADER: Final = "sgformer"  # the key of this program's header in a safetensors file


@dataclass(frozen=True)
class Weights:
    """Weights to start a training from.

    Attributes:
        tensors: The tensors by name, on the CPU; those of a released SG-Former have our names.
        source: Where they come from, in words.
        classes: The classes that the weights were trained for, in the order of the outputs; None:
            the file does not say.
        is_ordered: Whether the tensors are in the order in which their model has them.
    """

    tensors: dict[str, Tensor]
    source: str
    classes: tuple[str, ...] | None = None
    is_ordered: bool = False

    @property
    def num_bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())


@dataclass(frozen=True)
class StoredWeights:
    """A run's own copy of weights.

    Attributes:
        path: The file, in the run's folder.
        digest: The SHA-256 of the file's content; it is a part of a training's identity.
        source: Where the weights came from, in words.
    """

    path: Path
    digest: str
    source: str

    def read(self) -> Weights:
        return replace(read_weights(self.path), source=self.source)


def file_of(path: Path) -> Path:
    """The file of weights that a path stands for: the file itself, or the one in a folder.

    Raises:
        CheckpointError: There is no such file.
    """
    path = path.expanduser()
    if path.is_dir():
        found = next((path / name for name in IN_FOLDERS if (path / name).is_file()), None)
        if found is None:
            raise CheckpointError(
                f"{path} is a folder without weights; it has none of {', '.join(IN_FOLDERS)}"
            )
        return found
    if not path.is_file():
        raise CheckpointError(
            f"no such file: {path}; expected weights as .safetensors or .pth, or a run's folder"
        )
    return path


def read_weights(path: Path) -> Weights:
    """The weights in a file, or in a folder that this program wrote.

    Raises:
        CheckpointError: There is no such file, it is damaged, or it holds no weights, or code.
    """
    path = file_of(path)
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None
    if not start:
        raise CheckpointError(f"{path} is empty")
    for beginning, what in OTHERS.items():
        if start.removeprefix(codecs.BOM_UTF8).lstrip().startswith(beginning):
            raise CheckpointError(f"{path} holds no weights: it is {what}")
    is_safetensors = path.suffix == ".safetensors" or start[8:9] == b"{"
    weights = _read_safetensors(path) if is_safetensors else _read_torch(path)
    _check_are_plain(weights.tensors, path)
    if is_released(weights.tensors):
        try:
            return replace(weights, tensors=convert_state_dict(weights.tensors))
        except (CheckpointError, KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(f"{path} cannot be converted: {error}") from None
    return weights


def _check_are_plain(tensors: Mapping[str, Tensor], path: Path) -> None:
    if not tensors:
        raise CheckpointError(f"{path} holds no weights: there is no tensor with a name in it")
    for name, tensor in tensors.items():
        if tensor.is_meta or tensor.is_quantized or tensor.layout != torch.strided:
            kind = "an empty (meta)" if tensor.is_meta else "a sparse or quantized"
            raise CheckpointError(
                f"{path} holds {name} as {kind} tensor; save the model's dense state_dict()"
            )


def _read_safetensors(path: Path) -> Weights:
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(HEADER, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{path} is no safetensors file, or is cut off: {' '.join(str(error).split())}"
        ) from None
    if not isinstance(header, dict):
        return Weights(unwrap(tensors), str(path))
    if "members" in header:
        raise CheckpointError(
            f"{path} holds an ensemble of {len(header['members'])} models; a training starts from "
            "one model, such as a trial's best.safetensors, and learns from an ensemble by "
            "train.distillation.teacher"
        )
    return Weights(_of_model(tensors), str(path), _classes(header, path))


def _classes(header: Mapping[str, Any], path: Path) -> tuple[str, ...] | None:
    """The classes that this program's header names, if any."""
    images = header.get("images", {})
    classes = header.get("classes")
    if classes is None:
        classes = images.get("classes", []) if isinstance(images, dict) else images
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise CheckpointError(
            f"{path} is damaged: its header {HEADER!r} names no list of classes, but {classes!r}"
        )
    return tuple(classes) or None


def _of_model(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The evaluated model's weights among those of a training's whole state."""
    if not any(name.startswith("optimizer.") for name in tensors):
        return tensors
    prefix = "ema." if any(name.startswith("ema.") for name in tensors) else "model."
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _read_torch(path: Path) -> Weights:
    """The weights in a file of torch.save; of other objects, only their plain values are read."""
    try:
        # Training scripts often keep their arguments beside the weights. A Namespace is a plain
        # record: building it runs no code of the file.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other versions of pickle; the error says enough
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_no_plain_pickle(path, str(error))) from None
    except Exception as error:  # noqa: BLE001  a damaged file may raise anything
        raise CheckpointError(
            f"{path} is no file of torch.save, or is cut off: {_first_sentence(error)}"
        ) from None
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path} holds no weights by name, but a {type(content).__name__}; save a model's "
            "state_dict()"
        )
    return Weights(unwrap(content), str(path), is_ordered=True)


def _no_plain_pickle(path: Path, problem: str) -> str:
    named = re.search(r"GLOBAL (\S+)", problem)
    if named is not None:
        return (
            f"{path} is refused: beside tensors it holds {named[1]}, which could run code when "
            "it is loaded; nothing was run; save only a model's state_dict()"
        )
    return f"{path} is neither a safetensors file nor one of torch.save, or is damaged"


def _first_sentence(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text.partition(". ")[0][:200]
