"""A run's best/ folder: the winner's weights, config, metrics and ONNX file."""

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

EVAL_BATCH_SIZE: Final = 32  # fits where a training did


def deliver(folder: Path, checkpoint: Path, images: "ImagesId | None" = None) -> None:
    """Evaluates, exports and proves a checkpoint; only then replaces the folder as a whole.

    The folder is a run's best/, or one like it. The images are those of the checkpoint's own
    config, at its own resolution.
    """
    from sgformer.data.image_data import load_image_data

    new, old = (folder.with_name(f".{folder.name}-{suffix}") for suffix in ("new", "old"))
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
            f"the model knows the classes {', '.join(classes)}, and {data.folder.root} has "
            f"{', '.join(data.classes)}"
        )
    temporary = folder / ".model.onnx"
    try:
        export_onnx(model, temporary, config, classes)
        report = prove_export(model, temporary, config, data)
        temporary.replace(folder / "model.onnx")
    finally:
        temporary.unlink(missing_ok=True)
    _write_json(folder / "export.json", {"model.onnx": report.as_dict()})


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

    # Trained on a cluster's GPU, it may be delivered by a machine that has none.
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
