"""Checkpoints: safetensors files with a JSON header. Loading a checkpoint executes no code."""

import contextlib
import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file as save_tensors

from sgformer.disk import noticing_full_disk
from sgformer.errors import CheckpointError
from sgformer.optimization.distributed import rank
from sgformer.training.checkpoint_file import FORMAT_VERSION, load_checkpoint
from sgformer.training.device import is_out_of_memory
from sgformer.training.epoch_metrics import EpochMetrics

if TYPE_CHECKING:
    from sgformer.training.trainer import Trainer

LAST, PREVIOUS, BEST = "last.safetensors", "previous.safetensors", "best.safetensors"
WITHIN = "within_epoch.safetensors"  # where a training was left within the epoch after LAST's
EPOCHS = "epochs.csv"


def save_checkpoint(
    path: Path,
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, Any],
    keep_as: Path | None = None,
) -> None:
    """Writes a checkpoint atomically: a crash leaves either the old or the new file, complete.

    Args:
        path: The checkpoint file.
        tensors: The tensors by name.
        metadata: The header, of JSON's types.
        keep_as: If given, the previous file at `path` is renamed to this path.

    Raises:
        DiskFullError: The disk has no room for the checkpoint.
    """
    _replace(path, tensors, metadata, keep_as)
    with noticing_full_disk(path.parent):
        _sync(path.parent)


def _replace(
    path: Path,
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, Any],
    keep_as: Path | None = None,
) -> None:
    """`save_checkpoint`, but for the sync of the folder, which makes the file's name durable."""
    header = {"format_version": FORMAT_VERSION, **metadata}
    temporary = path.with_name(f"{path.name}.tmp")
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        with noticing_full_disk(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            _save(contiguous, temporary, {"sgformer": json.dumps(header)})
            _sync(temporary)
            if keep_as is not None and path.exists():
                path.replace(keep_as)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@dataclass(frozen=True)
class Saving:
    """What is saved after an epoch; nothing of it changes while the training goes on.

    Attributes:
        state: Tensors and metadata of the whole training.
        best: Weights and description of the model; None: this epoch is not the best.
        history: Metrics of all epochs.
        has_ended: Whether the training has ended.
    """

    state: tuple[Mapping[str, torch.Tensor], Mapping[str, Any]]
    best: tuple[Mapping[str, torch.Tensor], Mapping[str, Any]] | None
    history: tuple[EpochMetrics, ...]
    has_ended: bool

    @classmethod
    def of(cls, trainer: "Trainer") -> Self:
        """What is to be saved of a training now, after an epoch."""
        tensors, metadata = trainer.snapshot()
        best = None
        if trainer.early_stopping.best_epoch == trainer.num_epochs_done:
            prefix = trainer.prefix_of_model
            parts = (
                (name.removeprefix(prefix), name) for name in tensors if name.startswith(prefix)
            )
            best = {own: tensors[name] for own, name in parts}, trainer.description()
        has_ended = trainer.end_reason is not None
        return cls((tensors, metadata), best, tuple(trainer.history), has_ended)

    def write(self, folder: Path) -> None:
        """Writes best model, state and curve; then all of it is durable.

        Raises:
            DiskFullError: The disk has no room.
        """
        if self.best is not None:
            _replace(folder / BEST, *self.best)
        _replace(folder / LAST, *self.state, keep_as=folder / PREVIOUS)
        with noticing_full_disk(folder):
            _sync(folder)
        write_epochs(folder / EPOCHS, self.history)
        (folder / WITHIN).unlink(missing_ok=True)
        if self.has_ended:  # an ended training is not resumed
            (folder / PREVIOUS).unlink(missing_ok=True)


def save_progress(trainer: "Trainer", folder: Path) -> None:
    """Saves the training after an epoch: best model (if this epoch is best), state and curve."""
    Saving.of(trainer).write(folder)


class CheckpointWriter:
    """Saves a training after its epochs, by a thread, while the training goes on; one at a time.

    Args:
        folder: The folder of the training.
        publish: Is called by the thread when all is on the disk; then it is durable.
    """

    def __init__(self, folder: Path, publish: Callable[[], None] = lambda: None) -> None:
        self._folder, self._publish = folder, publish
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._write: Future[None] | None = None

    def begin(self, trainer: "Trainer") -> None:
        """Begins to save the training as it is after an epoch; first the former one is saved."""
        self.wait()
        self._write = self._thread.submit(self._save, Saving.of(trainer))

    @property
    def is_done(self) -> bool:
        """Whether nothing is being written."""
        return self._write is None or self._write.done()

    def wait(self, seconds: float | None = None) -> bool:
        """Waits until all is durable, at most `seconds`; returns whether it is.

        Raises:
            DiskFullError: The disk had no room.
            Exception: `publish` raised it.
        """
        if self._write is None:
            return True
        if not futures.wait([self._write], seconds).done:
            return False
        self._write.result()  # raises again, each time, what has failed: it is never durable
        self._write = None
        return True

    def close(self) -> None:
        """Waits for what is being written; an error of it is not told."""
        self._thread.shutdown()

    def _save(self, saving: Saving) -> None:
        saving.write(self._folder)
        self._publish()


def save_within_epoch(trainer: "Trainer", folder: Path) -> None:
    """Saves a training that is left within an epoch; every process of the training calls this."""
    tensors, metadata = trainer.state_dict()
    if rank() == 0:
        save_checkpoint(folder / WITHIN, tensors, metadata)


def resume_progress(trainer: "Trainer", folder: Path) -> tuple[str, ...]:
    """Loads the folder's last usable checkpoint into the trainer, if the folder has any.

    A training that was left within an epoch goes on there.

    Returns:
        For each newer checkpoint that could not be used, a line that says why.

    Raises:
        CheckpointError: There are checkpoints, but none is usable: each is damaged, or belongs to
            another program, configuration or images.
    """
    refused = []
    for path in _candidates(folder):
        try:
            _load_into(trainer, path)
        except CheckpointError as error:
            refused.append(str(error))
            continue
        if rank() == 0:
            # epochs.csv may lack the last epoch, if a crash came after the checkpoint's write.
            write_epochs(folder / EPOCHS, trainer.history)
        return tuple(refused)
    if refused:
        lines = "; ".join(refused)
        raise CheckpointError(f"{lines}; remove {folder} to train from the start")
    return ()


def _candidates(folder: Path) -> list[Path]:
    """The folder's checkpoints to resume from, the furthest first."""
    names = [WITHIN, LAST, PREVIOUS]
    within, last = _num_epochs(folder / WITHIN), _num_epochs(folder / LAST)
    if within is not None and last is not None and within < last:  # a crash left it behind
        names.remove(WITHIN)
    return [folder / name for name in names if (folder / name).exists()]


def _num_epochs(path: Path) -> int | None:
    """The epochs that a checkpoint has trained to their end; None if it cannot be read."""
    with (
        contextlib.suppress(OSError, SafetensorError, LookupError, ValueError),
        safe_open(path, "pt") as file,
    ):
        header = json.loads((file.metadata() or {}).get("sgformer", "{}"))
        return len(header["history"])
    return None


def _load_into(trainer: "Trainer", path: Path) -> None:
    """Loads a checkpoint into the trainer; refuses one of another configuration or images."""
    tensors, metadata = load_checkpoint(path)
    if metadata.get("fingerprint") != trainer.fingerprint:
        raise CheckpointError(f"{path} belongs to another configuration, or to other weights")
    if metadata.get("images") != trainer.images_trained_on():
        raise CheckpointError(f"{path} is of a training on other images or classes")
    try:
        trainer.load_state_dict(tensors, metadata)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise CheckpointError(f"{path} does not fit this program: {error}") from None


def write_epochs(path: Path, history: Iterable[EpochMetrics]) -> None:
    """Writes the learning curve as CSV, one row an epoch, atomically.

    Raises:
        DiskFullError: The disk has no room for the file.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(EpochMetrics.__dataclass_fields__))
    writer.writeheader()
    writer.writerows(metrics.as_row() for metrics in history)
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with noticing_full_disk(path.parent):
            temporary.write_text(text.getvalue(), encoding="utf-8", newline="")
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _save(tensors: Mapping[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Writes a safetensors file; from NumPy arrays, in half the time, unless some are bfloat16."""
    if any(tensor.dtype is torch.bfloat16 for tensor in tensors.values()):
        save_tensors(dict(tensors), path, metadata)
    else:
        save_arrays({name: t.numpy() for name, t in tensors.items()}, path, metadata)


def _sync(path: Path) -> None:
    """Waits until the disk holds a file's content, or a folder's list of names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
