"""A training's checkpoint in a run's store (hpo/run_store.py), and patience with the store."""

import contextlib
import csv
import json
import socket
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from hpo.errors import ClusterError, StoreError
from hpo.run_folder import MARK
from hpo.url_folder import UrlFolder, one_line
from sgformer.disk import is_full, noticing_full_disk
from sgformer.errors import CheckpointError, DiskFullError, InputError

POINTER: Final = "checkpoint.json"
ATTEMPTS, EPOCHS, WEIGHTS = "attempts.csv", "epochs.csv", "weights"
# What a training is resumed from, and its best model.
KEPT: Final = ("last.safetensors", "within_epoch.safetensors", "best.safetensors")
# A store that is away for this long ends the search, as a full disk does.
PATIENCE_SECONDS: Final = 300.0
FIRST_WAIT, LONGEST_WAIT = 0.5, 20.0  # seconds between tries
SETTING: Final = "(study.checkpoint_to)"
Result = TypeVar("Result")


class StoredTraining:
    """A training's checkpoint in the store, as one process sees it.

    A process that trains takes the checkpoint first; from then on no other process's files are
    taken for it. Two that take it at the same moment are told apart when they save.

    Args:
        files: The run's folder in the store.
        name: The training, such as 'trials/3'.
        where: The URL of its folder.
        mark: The mark of the run.
        tell: Is called with a message when the store is away.

    Attributes:
        where: The URL of the training's folder.
    """

    def __init__(
        self, files: UrlFolder, name: str, where: str, mark: str, tell: Callable[[str], None]
    ) -> None:
        self._files, self._name, self._mark, self._tell = files, name, mark, tell
        self._holder = uuid.uuid4().hex
        self._sent: dict[str, tuple[tuple[int, ...], str]] = {}
        self.where = where

    def take(self) -> None:
        """Makes this process the one that trains.

        Raises:
            ClusterError: The store is another run's.
            StoreError: The store is away.
        """

        def take() -> None:
            if self._files.read_text(MARK) != self._mark:
                raise ClusterError(
                    f"the store of {self.where} is not this run's as {socket.gethostname()} sees "
                    f"it: its file {MARK} is missing, or another run's {SETTING}"
                )
            self._point({**self._pointer(), "holder": self._holder})

        self._patiently(take)

    def fetch(self, folder: Path, names: tuple[str, ...] = KEPT) -> None:
        """Copies the checkpoint to a folder of this machine, with attempts.csv.

        Raises:
            CheckpointError: A file of the checkpoint is not there, or is not whole.
            StoreError: The store is away.
        """

        def fetch() -> None:
            for name, (stored, size) in self._pointer()["files"].items():
                if name in names:
                    self._fetch_file(stored, size, folder / name)
            text = self._files.read_text(f"{self._name}/{ATTEMPTS}")
            if text is not None:
                (folder / ATTEMPTS).write_text(text, encoding="utf-8")

        with noticing_full_disk(folder):
            self._patiently(fetch)

    def save(self, folder: Path) -> None:
        """Makes what is in the folder the checkpoint; then all of it is durable.

        Raises:
            CheckpointError: Another process has taken the training.
            StoreError: The store is away.
        """

        def save() -> None:
            pointer = self._held_pointer()
            files = {
                name: (self._send(folder / name), (folder / name).stat().st_size)
                for name in KEPT
                if (folder / name).exists()
            }
            if (folder / EPOCHS).exists():
                self._files.write(f"{self._name}/{EPOCHS}", folder / EPOCHS)
            self._point({**pointer, "epochs": saved_epochs(folder), "files": files})
            now = {stored for stored, _ in files.values()}
            for stored, _ in pointer["files"].values():
                if stored not in now:
                    with contextlib.suppress(OSError):  # it goes with the training's folder
                        self._files.delete(f"{self._name}/{stored}")

        with noticing_full_disk(folder):
            self._patiently(save)

    def save_attempts(self, folder: Path) -> None:
        """Copies attempts.csv, which tells of an epoch that begins.

        Raises:
            StoreError: The store is away.
        """
        name = f"{self._name}/{ATTEMPTS}"
        with noticing_full_disk(folder):
            self._patiently(lambda: self._files.write(name, folder / ATTEMPTS))

    def attempts(self) -> str:
        """The text of attempts.csv; empty: no epoch has begun."""
        name = f"{self._name}/{ATTEMPTS}"
        return self._patiently(lambda: self._files.read_text(name)) or ""

    def num_epochs(self) -> int:
        """The epochs of the checkpoint."""
        return int(self._patiently(self._pointer)["epochs"])

    def fetch_weights(self, name: str, target: Path) -> None:
        """Copies a file of the run's weights to a file of this machine.

        Raises:
            StoreError: The store is away.
        """
        with noticing_full_disk(target.parent):
            self._patiently(lambda: self._files.read(f"{WEIGHTS}/{name}", target))

    def _fetch_file(self, stored: str, size: int, target: Path) -> None:
        where = f"{self.where}: {stored}"
        try:
            self._files.read(f"{self._name}/{stored}", target)
        except FileNotFoundError:
            raise CheckpointError(f"{where} of the checkpoint is not there") from None
        if (found := target.stat().st_size) != size:
            raise CheckpointError(f"{where} has {found} bytes and not {size}")
        self._sent[target.name] = _identity(target), stored

    def _send(self, path: Path) -> str:
        """Copies a file, unless it was sent or fetched as it is; returns its name in the store."""
        identity = _identity(path)
        known, stored = self._sent.get(path.name, (None, ""))
        if known != identity:
            stored = f"{path.stem}-{uuid.uuid4().hex}{path.suffix}"
            self._files.write(f"{self._name}/{stored}", path)
            self._sent[path.name] = identity, stored
        return stored

    def _pointer(self) -> dict[str, Any]:
        text = self._files.read_text(f"{self._name}/{POINTER}")
        if text is None:
            return {"mark": self._mark, "holder": None, "epochs": 0, "files": {}}
        pointer: dict[str, Any] = json.loads(text)
        if pointer["mark"] != self._mark:
            raise CheckpointError(f"the checkpoint in {self.where} is another run's")
        return pointer

    def _held_pointer(self) -> dict[str, Any]:
        pointer = self._pointer()
        if pointer["holder"] != self._holder:
            raise CheckpointError(
                f"the training in {self.where} was taken by another process; the one on "
                f"{socket.gethostname()} saves nothing more"
            )
        return pointer

    def _point(self, pointer: dict[str, Any]) -> None:
        self._files.write_text(f"{self._name}/{POINTER}", json.dumps(pointer))

    def _patiently(self, action: Callable[[], Result]) -> Result:
        return patiently(action, self.where, self._tell)


def saved_epochs(folder: Path) -> int:
    """The epochs of a training whose checkpoints this process sees in the folder."""
    try:
        text = (folder / EPOCHS).read_text(encoding="utf-8")
    except OSError:
        return 0
    return len(list(csv.DictReader(text.splitlines())))


def _identity(path: Path) -> tuple[int, ...]:
    """Tells a file from another one that replaces it."""
    known = path.stat()
    return known.st_ino, known.st_mtime_ns, known.st_size


def patiently(
    action: Callable[[], Result], url: str, tell: Callable[[str], None] = lambda _: None
) -> Result:
    """What an action gives back, which is tried again while the store is away.

    Args:
        action: Uses the store; may be repeated.
        url: The URL of the store.
        tell: Is called with a message, once, if the first try fails.

    Raises:
        StoreError: The store is away for longer than PATIENCE_SECONDS.
        InputError: The action raised it.
    """
    begin, seconds = time.monotonic(), FIRST_WAIT
    while True:
        try:
            return action()
        except (InputError, DiskFullError):
            raise
        except Exception as error:  # each library has its own kinds
            if is_full(error):
                raise
            reason = one_line(error)
            if time.monotonic() - begin > PATIENCE_SECONDS:
                raise StoreError(
                    f"the checkpoints at {url} could not be reached for {PATIENCE_SECONDS:.0f} "
                    f"seconds: {reason} {SETTING}"
                ) from None
            if seconds == FIRST_WAIT:
                tell(
                    f"the checkpoints at {url} cannot be reached ({reason}); trying for "
                    f"{PATIENCE_SECONDS:.0f} seconds"
                )
        time.sleep(seconds)
        seconds = min(2 * seconds, LONGEST_WAIT)
