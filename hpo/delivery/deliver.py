"""Makes a run's best/ folder of a checkpoint: weights, config, metrics and ONNX file."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from hpo.run_folder import replace_text
from sgformer.config import TrainConfig
from sgformer.errors import DataError

if TYPE_CHECKING:
    from sgformer.data.image_cache import ImagesId
    from sgformer.data.image_data import ImageData

EVAL_BATCH_SIZE: Final = 32  # fits into memory wherever a training does
MOST_NAMES: Final = 5  # class names in a message


def deliver(folder: Path, checkpoint: Path, images: "ImagesId | None" = None) -> None:
    """Evaluates and exports a checkpoint, checks the export, then replaces the folder as a whole.

    Args:
        folder: A run's best/, or a folder like it.
        checkpoint: The weights; its config says which images it is evaluated on, and how large.
        images: Identifies the images that must be there; None: any.

    Raises:
        DataError: The images cannot be read, or are other ones.
        ExportError: The ONNX file does not compute what the model does; the folder is as before.
    """
    from sgformer.data.image_data import load_image_data

    restore(folder)
    new, old = _beside(folder, "new"), _beside(folder, "old")
    for left_over in (new, old):
        shutil.rmtree(left_over, ignore_errors=True)
    new.mkdir(parents=True)
    shutil.copyfile(checkpoint, new / "checkpoint.safetensors")
    config, model, classes = load_model(new / "checkpoint.safetensors")
    data = load_image_data(config.data, expected=images)
    values = config.model_dump(mode="json")
    replace_text(new / "config.yaml", yaml.safe_dump(values, sort_keys=False))
    _write_json(new / "classes.json", list(classes))
    _write_json(new / "metrics.json", evaluate_splits(config, model, data))
    _export(new, config, model, data, classes)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def restore(folder: Path) -> None:
    """Puts the former model back where a crash came between the two renames of `deliver`."""
    old = _beside(folder, "old")
    if old.is_dir() and not folder.exists():
        old.rename(folder)


def _beside(folder: Path, suffix: str) -> Path:
    return folder.with_name(f".{folder.name}-{suffix}")


def export(folder: Path, data_dir: Path | None) -> None:
    """Writes model.onnx and export.json from the folder's checkpoint.safetensors.

    Args:
        folder: A best/ folder.
        data_dir: Where the images are now; their val split proves the export.

    Raises:
        ExportError: The ONNX file does not compute what the model does; no file is replaced.
    """
    from sgformer.data.image_data import load_image_data

    config, model, classes = load_model(folder / "checkpoint.safetensors")
    data = load_image_data(config.data.model_copy(update={"data_dir": data_dir}))
    _export(folder, config, model, data, classes)


def _export(
    folder: Path, config: TrainConfig, model: Any, data: "ImageData", classes: tuple[str, ...]
) -> None:
    from sgformer.export.onnx_export import export_onnx, prove_export

    if data.classes != classes:
        raise DataError(
            f"{data.folder.root} has other classes than the model: "
            f"{_some(set(classes) - set(data.classes))} are missing, "
            f"{_some(set(data.classes) - set(classes))} are new"
        )
    temporary = folder / ".model.onnx"
    try:
        export_onnx(model, temporary, config, classes)
        report = prove_export(model, temporary, config, data)
        temporary.replace(folder / "model.onnx")
    finally:
        temporary.unlink(missing_ok=True)
    _write_json(folder / "export.json", {"model.onnx": report.as_dict()})


def _some(names: set[str]) -> str:
    """Such as "'cat', 'dog' and 7 more"; "none" of no names."""
    shown = ", ".join(map(repr, sorted(names)[:MOST_NAMES]))
    more = len(names) - MOST_NAMES
    return f"{shown} and {more} more" if more > 0 else shown or "none"


def load_model(checkpoint: Path) -> tuple[TrainConfig, Any, tuple[str, ...]]:
    """Config, model in eval mode on the CPU, and class names of a best.safetensors."""
    from sgformer.model.build import create_model
    from sgformer.training.checkpoint import load_checkpoint

    tensors, metadata = load_checkpoint(checkpoint)
    config = TrainConfig.model_validate(metadata["config"])
    classes = tuple(metadata["classes"])
    model = create_model(config, len(classes))
    model.load_state_dict(tensors)
    return config, model.eval(), classes


def evaluate_splits(config: TrainConfig, model: Any, data: "ImageData") -> dict[str, Any]:
    """Metrics on val and test; test is None where there is no such split."""
    from sgformer.data.loader import eval_batches
    from sgformer.training.device import choose_device
    from sgformer.training.evaluation import compute_metrics, predict_logits

    # A model that a cluster's GPU trained may be delivered by a machine without one.
    anywhere = "cpu" if config.device == "cpu" else "auto"
    device = choose_device(config.model_copy(update={"device": anywhere}))
    model.to(device)
    metrics: dict[str, Any] = {"val": None, "test": None}
    for split in metrics:
        if split in data.splits:
            batches = eval_batches(data, split, config.data, EVAL_BATCH_SIZE)
            logits, labels = predict_logits(model, batches, device)
            metrics[split] = asdict(compute_metrics(logits, labels, data.classes))
    return metrics


def _write_json(path: Path, value: Any) -> None:
    replace_text(path, json.dumps(value, indent=2) + "\n")
