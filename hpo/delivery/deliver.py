"""Makes a run's best/ folder from a checkpoint: weights, config, metrics and ONNX file."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from hpo.run_folder import replace_text
from sgformer.config import TrainConfig
from sgformer.errors import DataError, listed

if TYPE_CHECKING:
    from sgformer.data.image_cache import ImagesId
    from sgformer.data.image_data import ImageData
    from sgformer.images.trained_images import TrainedImages

EVAL_BATCH_SIZE: Final = 32  # fits into the memory of any machine that can train


def deliver(folder: Path, checkpoint: Path, images: "ImagesId | None" = None) -> None:
    """Evaluates and exports a checkpoint, checks the export, then replaces the whole folder.

    Args:
        folder: A run's best/, or a folder of front/.
        checkpoint: The weights with their config, which names the images and their size.
        images: Identifies the images of the search; None: any images are accepted.

    Raises:
        DataError: The images cannot be read, or are not those of the search.
        ExportError: The ONNX model and the trained model give different outputs; the folder
            stays unchanged.
    """
    restore(folder)
    new, old = _beside(folder, "new"), _beside(folder, "old")
    for left_over in (new, old):
        shutil.rmtree(left_over, ignore_errors=True)
    new.mkdir(parents=True)
    shutil.copyfile(checkpoint, new / "checkpoint.safetensors")
    config, model, classes = load_model(new / "checkpoint.safetensors")
    known = _trained_images(new / "checkpoint.safetensors")
    data = _images_for(config, known, images)
    values = config.model_dump(mode="json")
    replace_text(new / "config.yaml", yaml.safe_dump(values, sort_keys=False))
    _write_json(new / "classes.json", list(classes))
    _write_json(new / "metrics.json", evaluate_splits(config, model, data))
    _export(new, config, model, data, classes, known)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def restore(folder: Path) -> None:
    """Puts the former model back after a crash between the two renames of `deliver`."""
    old = _beside(folder, "old")
    if old.is_dir() and not folder.exists():
        old.rename(folder)


def _beside(folder: Path, suffix: str) -> Path:
    return folder.with_name(f".{folder.name}-{suffix}")


def export(folder: Path, data_dir: Path | None) -> tuple[str, ...]:
    """Writes model.onnx and export.json from the folder's checkpoint.safetensors.

    Args:
        folder: A run's best/, or a folder of front/.
        data_dir: The image folder; the export is checked on its val split.

    Returns:
        What a user should know of the images, a sentence each.

    Raises:
        DataError: The images cannot be read, or val was split off train and train has changed.
        ExportError: The ONNX model and the trained model give different outputs; no file is
            replaced.
    """
    from sgformer.images.trained_images import on_other_images

    checkpoint = folder / "checkpoint.safetensors"
    config, model, classes = load_model(checkpoint)
    elsewhere = config.data.model_copy(update={"data_dir": data_dir})
    config, known = config.model_copy(update={"data": elsewhere}), _trained_images(checkpoint)
    data = _images_for(config, known)
    _export(folder, config, model, data, classes, known)
    if known is None or known.has_same("val", data.trained_images):
        return data.notes
    return (*data.notes, on_other_images("val"))


def _trained_images(checkpoint: Path) -> "TrainedImages | None":
    from sgformer.images.trained_images import TrainedImages
    from sgformer.training.checkpoint import read_metadata

    return TrainedImages.from_metadata(read_metadata(checkpoint))


def _images_for(
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
        report = prove_export(model, temporary, config, data)
        temporary.replace(folder / "model.onnx")
    finally:
        temporary.unlink(missing_ok=True)
    _write_json(folder / "export.json", {"model.onnx": report.as_dict()})


def load_model(checkpoint: Path) -> tuple[TrainConfig, Any, tuple[str, ...]]:
    """The config, the model (on the CPU, in eval mode) and the class names of a checkpoint."""
    from sgformer.model.build import create_model
    from sgformer.training.checkpoint import load_checkpoint

    tensors, metadata = load_checkpoint(checkpoint)
    config = TrainConfig.model_validate(metadata["config"]).resolved()
    classes = tuple(metadata["classes"])
    model = create_model(config, len(classes))
    model.load_state_dict(tensors)
    return config, model.eval(), classes


def evaluate_splits(config: TrainConfig, model: Any, data: "ImageData") -> dict[str, Any]:
    """The model's metrics on val and test, by split; None for a split that does not exist.

    They are computed in float32, whatever the precision of the training.
    """
    from sgformer.data.model_input import eval_batches
    from sgformer.optimization.numerics import Numerics, exact_float32
    from sgformer.training.device import choose_device
    from sgformer.training.evaluation import compute_metrics, predict_logits

    # A model that was trained on a cluster's GPU may be delivered by a machine without a GPU.
    anywhere = "cpu" if config.device == "cpu" else "auto"
    device = choose_device(config.model_copy(update={"device": anywhere}))
    model.to(device)
    metrics: dict[str, Any] = {"val": None, "test": None}
    for split in metrics:
        if split in data.splits:
            batches = eval_batches(data, split, config.data, EVAL_BATCH_SIZE)
            with exact_float32():
                logits, labels = predict_logits(model, batches, Numerics(device))
            metrics[split] = asdict(compute_metrics(logits, labels, data.classes))
    return metrics


def _write_json(path: Path, value: Any) -> None:
    replace_text(path, json.dumps(value, indent=2) + "\n")
