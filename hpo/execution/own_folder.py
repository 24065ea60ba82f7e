"""A node's own folder for a training whose checkpoints are kept in a store (hpo/run_store.py).

It lies beside the caches of decoded images, is this process's alone, and goes with the training.
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import filelock

from hpo.run_folder import discard
from hpo.run_store import RunStore
from hpo.stored_training import KEPT, StoredTraining
from sgformer.data.cache_place import cache_place, make_place
from sgformer.disk import noticing_full_disk
from sgformer.errors import CheckpointError
from sgformer.locks import lock_of

if TYPE_CHECKING:
    from sgformer.model.weight_files import StoredWeights

FOLDER: Final = "trainings"  # in the folder of the caches
LOCK: Final = ".lock"


@dataclass(frozen=True)
class TrainingFolder:
    """The folder in which a process trains.

    Attributes:
        path: The folder.
        stored: The checkpoint in the run's store; None: the folder itself is all nodes'.
    """

    path: Path
    stored: StoredTraining | None = None

    @property
    def where(self) -> str:
        """Where the user finds the checkpoint."""
        return str(self.path) if self.stored is None else self.stored.where

    @property
    def best(self) -> str:
        """Where the user finds the best model; in a store its name changes."""
        return str(self.path / "best.safetensors") if self.stored is None else self.where

    @property
    def what_nodes_share(self) -> str:
        """What the nodes have to have in common, in words."""
        if self.stored is None:
            return "all nodes must share the run folder (--output-dir)"
        return "all nodes must use the same store (study.checkpoint_to)"

    def own_copy(self, weights: "StoredWeights | None") -> "StoredWeights | None":
        """The weights to start from, at the place where this machine has them, or will."""
        if weights is None or self.stored is None:
            return weights
        return replace(weights, path=self.path / weights.path.name)

    def fetch_weights(self, weights: "StoredWeights | None") -> None:
        """Gets `own_copy` from the store; from a shared folder there is nothing to get."""
        if weights is not None and self.stored is not None:
            self.stored.fetch_weights(weights.path.name, self.path / weights.path.name)

    def publish(self) -> None:
        """Makes what was written to the folder durable."""
        if self.stored is not None:
            self.stored.save(self.path)

    def note_attempt(self) -> None:
        """Makes it known that an epoch has begun."""
        if self.stored is not None:
            self.stored.save_attempts(self.path)


@contextlib.contextmanager
def own_folder(
    store: RunStore,
    name: str,
    tell: Callable[[str], None] = lambda _: None,
    *,
    trains: bool = True,
    names: tuple[str, ...] = KEPT,
) -> Iterator[TrainingFolder]:
    """A new folder of this machine with a training's checkpoint, for the block.

    Args:
        store: The run's store.
        name: The training, such as 'trials/3'.
        tell: Is called with a message when the store is away.
        trains: Whether this process trains, and takes the checkpoint.
        names: The files of the checkpoint to fetch.

    Raises:
        CheckpointError: The checkpoint is not whole, or another process has taken the training.
        ClusterError: The store is another run's.
        StoreError: The store is away.
        DiskFullError: The disk of the folder is full.
    """
    stored = store.open(name, tell)
    with _new_folder(store) as path:
        if trains:
            stored.take()
        stored.fetch(path, names)
        try:
            yield TrainingFolder(path, stored)
        except CheckpointError as error:  # the user knows the checkpoint by its URL
            raise CheckpointError(str(error).replace(str(path), stored.where)) from None


@contextlib.contextmanager
def _new_folder(store: RunStore) -> Iterator[Path]:
    place = cache_place(store.cache_dir)
    root = place / FOLDER
    with noticing_full_disk(root):
        make_place(place, store.cache_dir)
        root.mkdir(exist_ok=True)
        with lock_of(root / LOCK):
            _sweep(root)
            path = Path(tempfile.mkdtemp(prefix=f"{store.mark[:8]}-", dir=root))
            lock = lock_of(path / LOCK)
            lock.acquire()
    try:
        yield path
    finally:
        lock.release()
        discard(path)


def _sweep(root: Path) -> None:
    """Removes what processes that were killed have left."""
    for path in filter(Path.is_dir, root.iterdir()):
        lock = lock_of(path / LOCK)
        with contextlib.suppress(filelock.Timeout, OSError):  # one ends just now
            lock.acquire(timeout=0)
            lock.release()
            discard(path)
