"""Writes a trained model as ONNX: its graph, its weights, and what a caller has to know of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from sgformer import __version__
from sgformer.config import TrainConfig
from sgformer.export.graph import with_weights
from sgformer.export.graph_cache import graph_of
from sgformer.export.onnx_file import save
from sgformer.images.trained_images import TrainedImages


def export_onnx(
    model: nn.Module,
    path: Path,
    config: TrainConfig,
    classes: tuple[str, ...],
    images: TrainedImages | None = None,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Writes the model to a file, with a dynamic batch axis, classes and preprocessing.

    The file holds no path, and no name of this machine or its user.

    Args:
        model: The model.
        path: The file.
        config: The training's settings.
        classes: Class names, in the order of the logits.
        images: What the file keeps of the images of the training.
        facts: Further metadata, such as metrics and the license.

    Raises:
        ExportError: PyTorch cannot export the model, or fixed the batch size.
    """
    model = model.cpu().eval()
    graph = graph_of(model, config)
    metadata = metadata_of(config, classes, images) | dict(facts or {})
    save(with_weights(graph, model.state_dict()), path, metadata)


def metadata_of(
    config: TrainConfig, classes: tuple[str, ...], images: TrainedImages | None = None
) -> dict[str, Any]:
    """The metadata of a file: classes, preprocessing, version and settings of the training."""
    settings = _without_paths(config.model_dump(mode="json"), config.model_dump())
    data = settings.pop("data")
    if images is not None:
        data["max_value"] = data["max_value"] or images.max_value
    metadata = {"version": __version__, "classes": classes, "data": data, "train": settings}
    return metadata | (images.as_metadata() if images is not None else {})


def _without_paths(values: Mapping[str, Any], typed: Mapping[str, Any]) -> dict[str, Any]:
    """The settings without those that are paths, by the types that the config has for them."""
    return {
        name: _without_paths(value, typed[name]) if isinstance(value, dict) else value
        for name, value in values.items()
        if not _has_path(typed[name])
    }


def _has_path(value: object) -> bool:
    return isinstance(value, Path) or (isinstance(value, tuple) and any(map(_has_path, value)))
