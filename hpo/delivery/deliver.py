"""Makes a run's best/ folder from a checkpoint: weights, config, metrics and ONNX file."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from hpo.config.sections import RetrainConfig
from hpo.run_folder import finish_replacing, newcomer_of, replace_folder, replace_text
from sgformer.config import TrainConfig
from sgformer.data_config import DataConfig
from sgformer.errors import DataError, listed

if TYPE_CHECKING:
    from sgformer.data.image_cache import ImagesId
    from sgformer.data.image_data import ImageData
    from sgformer.images.trained_images import TrainedImages


def deliver(
    folder: Path,
    checkpoint: Path,
    metrics: Mapping[str, Any],
    images: "ImagesId | None" = None,
    num_images: int = RetrainConfig().proof_images,
    places: DataConfig | None = None,
) -> None:
    """Exports an evaluated checkpoint, checks the export, then replaces the whole folder.

    Args:
        folder: A run's best/, or a folder of front/.
        checkpoint: The weights with their config, which names the images and their size.
        metrics: The checkpoint's SplitMetrics on val and test, by split.
        images: Identifies the images of the search; None: any images are accepted.
        num_images: The number of val images on which the export is checked, at most.
        places: Where the images and their cache are now; None: where the training had them.

    Raises:
        DataError: The images cannot be read, or are not those of the search.
        ExportError: The ONNX model and the trained model give different outputs; the folder
            stays unchanged.
    """
    finish_replacing(folder)
    new = newcomer_of(folder)
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    shutil.copyfile(checkpoint, new / "checkpoint.safetensors")
    config, model, classes = load_model(new / "checkpoint.safetensors", places)
    known = trained_images_of(checkpoint)
    data = images_for(config, known, images)
    values = config.model_dump(mode="json")
    replace_text(new / "config.yaml", yaml.safe_dump(values, sort_keys=False))
    _write_json(new / "classes.json", list(classes))
    _write_json(new / "metrics.json", metrics)
    _export(new, config, model, data, classes, known, num_images)
    replace_folder(folder, new)


def export(folder: Path, places: DataConfig, num_images: int) -> tuple[str, ...]:
    """Writes model.onnx and export.json from the folder's checkpoint.safetensors.

    Args:
        folder: A run's best/, or a folder of front/.
        places: Where the images and their cache are; the export is checked on their val split.
        num_images: The number of val images on which the export is checked, at most.

    Returns:
        What a user should know of the images, a sentence each.

    Raises:
        DataError: The images cannot be read, or val was split off train and train has changed.
        ExportError: The ONNX model and the trained model give different outputs; no file is
            replaced.
    """
    from sgformer.images.trained_images import on_other_images

    checkpoint = folder / "checkpoint.safetensors"
    config, model, classes = load_model(checkpoint, places)
    known = trained_images_of(checkpoint)
    data = images_for(config, known)
    _export(folder, config, model, data, classes, known, num_images)
    if known is None or known.has_same("val", data.trained_images):
        return data.notes
    return (*data.notes, on_other_images("val"))


def trained_images_of(checkpoint: Path) -> "TrainedImages | None":
    """What a checkpoint keeps of the images of its training; None: it is of an earlier version."""
    from sgformer.images.trained_images import TrainedImages
    from sgformer.training.checkpoint import read_metadata

    return TrainedImages.from_metadata(read_metadata(checkpoint))


def images_for(
    config: TrainConfig, known: "TrainedImages | None", expected: "ImagesId | None" = None
) -> "ImageData":
    """The images to evaluate a model on, decoded as those of its training were."""
    from sgformer.data.image_data import load_image_data

    data = load_image_data(config.data, expected=expected)
    white = data.images.rules.max_value
    if known is None or known.max_value is None or white in (None, known.max_value):
        return data
    as_known = config.data.model_copy(update={"max_value": known.max_value})
    return load_image_data(as_known, expected=expected)


def _export(
    folder: Path,
    config: TrainConfig,
    model: Any,
    data: "ImageData",
    classes: tuple[str, ...],
    known: "TrainedImages | None",
    num_images: int,
) -> None:
    from sgformer.export.onnx_export import export_onnx, prove_export

    if data.classes != classes:
        raise DataError(
            f"{data.folder.root} has other classes than the model: "
            f"{listed(sorted(set(classes) - set(data.classes)))} are missing, "
            f"{listed(sorted(set(data.classes) - set(classes)))} are new"
        )
    if known is not None:
        known.refuse_mixed_val(data.trained_images, data.folder.root)
    temporary = folder / ".model.onnx"
    try:
        export_onnx(model, temporary, config, classes, known)
        report = prove_export(model, temporary, config, data, num_images)
        temporary.replace(folder / "model.onnx")
    finally:
        temporary.unlink(missing_ok=True)
    _write_json(folder / "export.json", {"model.onnx": report.as_dict()})


def load_model(
    checkpoint: Path, places: DataConfig | None = None
) -> tuple[TrainConfig, Any, tuple[str, ...]]:
    """The config, the model (on the CPU, in eval mode) and the class names of a checkpoint.

    Args:
        checkpoint: The checkpoint.
        places: Where the images and their cache are now; None: where the training had them.
    """
    from sgformer.model.build import create_model
    from sgformer.training.checkpoint import load_checkpoint

    tensors, metadata = load_checkpoint(checkpoint)
    config = TrainConfig.model_validate(metadata["config"]).resolved()
    if places is not None:
        config = config.model_copy(update={"data": config.data.at_places_of(places)})
    classes = tuple(metadata["classes"])
    model = create_model(config, len(classes))
    model.load_state_dict(tensors)
    return config, model.eval(), classes


def _write_json(path: Path, value: Any) -> None:
    replace_text(path, json.dumps(value, indent=2) + "\n")
