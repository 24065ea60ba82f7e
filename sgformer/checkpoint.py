"""Checkpoints: safetensors with a JSON header. Nothing in them can be executed."""

import csv
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from sgformer.errors import CheckpointError
from sgformer.trainer import EpochMetrics, Trainer

FORMAT_VERSION: Final = 1
LAST, BEST, EPOCHS = "last.safetensors", "best.safetensors", "epochs.csv"


def save_checkpoint(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]
) -> None:
    """Writes atomically: a crash leaves the file as it was or the new one, whole."""
    header = {"format_version": FORMAT_VERSION, **metadata}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, temporary, metadata={"sgformer": json.dumps(header)})
    _replace(temporary, path)


def load_checkpoint(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors on the CPU, and the metadata.

    Raises:
        CheckpointError: The file is missing, damaged, or was not written by this program.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("sgformer", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise CheckpointError(f"cannot read checkpoint {path}: {error}") from None
    if not isinstance(header, dict) or header.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} is not a checkpoint of this program in format {FORMAT_VERSION}"
        )
    return tensors, header


def save_progress(trainer: Trainer, folder: Path) -> None:
    """After an epoch: the best model if it is this epoch's, the whole state, the curve."""
    if trainer.early_stopping.best_epoch == trainer.num_epochs_done:
        save_checkpoint(folder / BEST, trainer.model.state_dict(), trainer.description())
    save_checkpoint(folder / LAST, *trainer.state_dict())
    write_epochs(folder / EPOCHS, trainer.history)


def resume_progress(trainer: Trainer, folder: Path) -> bool:
    """Continues from the folder's last checkpoint; False if there is none.

    Raises:
        CheckpointError: The checkpoint is damaged or of another configuration.
    """
    path = folder / LAST
    if not path.exists():
        return False
    tensors, metadata = load_checkpoint(path)
    if metadata.get("fingerprint") != trainer.config.fingerprint():
        raise CheckpointError(
            f"{path} belongs to another configuration; remove it to train from the start"
        )
    trainer.load_state_dict(tensors, metadata)
    # The curve of before, should the crash have come between the two files.
    write_epochs(folder / EPOCHS, trainer.history)
    return True


def write_epochs(path: Path, history: Iterable[EpochMetrics]) -> None:
    """The curve as CSV, one row an epoch."""
    rows = [metrics.as_row() for metrics in history]
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, prefix=f".{path.name}", newline="", delete=False
    ) as file:
        writer = csv.DictWriter(file, fieldnames=list(EpochMetrics.__dataclass_fields__))
        writer.writeheader()
        writer.writerows(rows)
    Path(file.name).chmod(0o644)
    Path(file.name).replace(path)


def _replace(temporary: Path, path: Path) -> None:
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
