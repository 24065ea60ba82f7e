"""The run folder: the paths of a run's files, and a lock that admits one process at a time."""

import contextlib
import os
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import filelock

from hpo.config.loading import dump_search_config, load_search_config
from hpo.config.schema import SearchConfig
from hpo.config.storage_url import JOURNAL_PREFIX, sqlite_url
from hpo.errors import ClusterError, StudyError
from hpo.model_files import ModelFiles
from sgformer.disk import is_on_a_network
from sgformer.errors import InputError
from sgformer.locks import lock_of, take

# A network file system may show an older state of a folder for as long as it caches its names.
# Source: acdirmax of nfs(5), 60 seconds.
SECONDS_UNTIL_SEEN: Final = 60.0
SECONDS_BETWEEN_LOOKS: Final = 0.5
MARK: Final = ".mark"
SLOTS: Final = ".slots"
LOCK: Final = ".lock"


@dataclass(frozen=True)
class RunFolder:
    """Paths of the files of a run."""

    path: Path

    @property
    def search_file(self) -> Path:
        return self.path / "search.yaml"

    @property
    def journal(self) -> Path:
        """The study's file where SQLite would lie on a network's file system."""
        return self.path / "study.journal"

    @property
    def trials(self) -> Path:
        """One folder per trial, by number, with its checkpoints and learning curve."""
        return self.path / "trials"

    @property
    def best(self) -> Path:
        """The folder of the delivered model; see ModelFiles."""
        return self.path / "best"

    @property
    def front(self) -> Path:
        """Holds a folder like best/ for each further trial of the Pareto front, by number."""
        return self.path / "front"

    @property
    def leaderboard(self) -> Path:
        return self.path / "leaderboard.csv"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def retraining(self) -> Path:
        """Checkpoints of a retraining that is not delivered yet."""
        return self.path / ".retraining"

    @property
    def architectures(self) -> Path:
        """Untrained models as ONNX files, until their latency is measured."""
        return self.path / ".architectures"

    @property
    def is_delivered(self) -> bool:
        """Whether best/ holds an exported model."""
        return ModelFiles(self.best).is_delivered

    @property
    def is_complete(self) -> bool:
        """Whether model, report and leaderboard exist."""
        return self.is_delivered and self.report.exists() and self.leaderboard.exists()

    @property
    def has_owner(self) -> bool:
        """Whether a process works on the run, or was killed while it did."""
        return self._owner.exists()

    @property
    def _owner(self) -> Path:
        return self.path / ".owner"

    def make(self) -> None:
        """Makes the folder; raises InputError if it cannot be made or written to."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.path).close()
        except OSError as error:
            raise InputError(
                f"cannot write to the run folder {self.path}: {error.strerror} (--output-dir)"
            ) from None

    def check_writable(self) -> None:
        """Raises InputError if the folder could not be made or written to; makes nothing."""
        try:
            there = next(path for path in (self.path, *self.path.parents) if path.exists())
            is_writable = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
        except OSError:  # a folder above may not be entered
            is_writable = False
        if not is_writable:
            raise InputError(f"cannot write to the run folder {self.path} (--output-dir)")

    def storage_url(self, config: SearchConfig, storage: str | None = None) -> str:
        """The URL `storage`, else the config's, else that of the study's file in this folder."""
        return storage or config.study.storage or self._own_storage_url()

    def _own_storage_url(self) -> str:
        """The URL of study.db; of study.journal if that exists, or if the folder is on a network.

        SQLite's write-ahead log works within one host. Whoever finds the folder on another node
        opens the file that is there.
        """
        database = self.path / "study.db"
        is_new_on_a_network = not database.exists() and is_on_a_network(self.path)
        if self.journal.exists() or is_new_on_a_network:
            return f"{JOURNAL_PREFIX}{self.journal}"
        return sqlite_url(database)

    def load_config(self) -> SearchConfig:
        """The config in the run's search.yaml; raises StudyError if the file does not exist."""
        if not self.search_file.is_file():
            raise StudyError(f"not a run folder: {self.path} has no search.yaml")
        return load_search_config(self.search_file)[0]

    def save_config(self, config: SearchConfig) -> None:
        replace_text(self.search_file, dump_search_config(config))

    def ask_for_slots(self, num: int | None) -> None:
        """Asks the search that runs for a number of slots; None: no longer."""
        path = self.path / SLOTS
        if num is None:
            path.unlink(missing_ok=True)
        else:
            replace_text(path, str(num))

    def asked_slots(self) -> int | None:
        """The number of slots that the search was asked for while it runs; None: it was not."""
        try:
            return int((self.path / SLOTS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def mark(self) -> str:
        """A random text in the run's folder, written when it is first asked for.

        It tells this folder from one of the same path on a node that does not share it.
        """
        path = self.path / MARK
        if not path.exists():
            replace_text(path, uuid.uuid4().hex)
        return path.read_text(encoding="utf-8")

    def check_mark(self, mark: str | None, seconds: float | None = None) -> None:
        """Checks that this machine sees the run's folder.

        Args:
            mark: The driver's `mark()`; None: the folder need only exist.
            seconds: How long it may take until the mark is seen; None: as long as a network file
                system may show an old state.

        Raises:
            ClusterError: The folder is not there, or is another run's.
        """
        is_there = mark is None or becomes_true(lambda: self._read_mark() == mark, seconds)
        if is_there and self.path.is_dir():
            return
        what, node = f"the run folder {self.path}", socket.gethostname()
        if not self.path.is_dir():
            fault = f"{what} is not there on {node}"
        elif self._read_mark() is None:
            fault = f"{what} on {node} is not this run's: it has no file {MARK}"
        else:
            fault = f"{what} on {node} is another run's, as its file {MARK} says"
        raise ClusterError(f"{fault}; it must be one that all nodes share (--output-dir)")

    def _read_mark(self) -> str | None:
        try:
            return (self.path / MARK).read_text(encoding="utf-8")
        except OSError:
            return None

    def is_locked(self, tell: Callable[[str], None]) -> bool:
        """Whether a process is working on the run; `tell` is as in `locked`."""
        lock = lock_of(self.path / LOCK)
        try:
            take(lock, tell)
        except filelock.Timeout:
            return True
        lock.release()
        return False

    @contextlib.contextmanager
    def locked(self, tell: Callable[[str], None]) -> Iterator[None]:
        """Locks the run for the block.

        If a crash ended the last delivery between two renames, its model is put into best/.

        Args:
            tell: Is called with a message if another process is watched, to see if it lives.

        Raises:
            StudyError: Another process has the lock.
        """
        lock, owner = lock_of(self.path / LOCK), self._owner
        try:
            take(lock, tell)
        except filelock.Timeout:
            who = owner.read_text(encoding="utf-8") if owner.exists() else "one that just began"
            raise StudyError(f"another process is working on {self.path}: {who}") from None
        try:
            replace_text(owner, f"process {os.getpid()} on {socket.gethostname()}")
            self.ask_for_slots(None)
            finish_replacing(self.best)
            yield
        finally:
            owner.unlink(missing_ok=True)
            lock.release()


def becomes_true(is_true: Callable[[], bool], seconds: float | None = None) -> bool:
    """Asks until the answer is yes, for some seconds at most.

    None: for as long as a network file system may show an old state.
    """
    end = time.monotonic() + (SECONDS_UNTIL_SEEN if seconds is None else seconds)
    while not is_true():
        if time.monotonic() > end:
            return False
        time.sleep(SECONDS_BETWEEN_LOOKS)
    return True


def replace_folder(folder: Path, new: Path) -> None:
    """Puts a delivered model, which lies in `newcomer_of(folder)`, in the place of another one.

    At any moment a whole model is in one of three folders, from which `finish_replacing` takes it
    after a crash.
    """
    for path in filter(Path.is_file, new.rglob("*")):
        with path.open("rb") as file:
            os.fsync(file.fileno())
    old = _former_of(folder)
    shutil.rmtree(old, ignore_errors=True)  # a former model, which an earlier call left
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    discard(old)


def finish_replacing(folder: Path) -> None:
    """Completes a `replace_folder` that a crash ended when there was no folder in the place."""
    if folder.exists():
        return
    for path in (newcomer_of(folder), _former_of(folder)):
        if ModelFiles(path).is_delivered:
            path.rename(folder)
            return


def newcomer_of(folder: Path) -> Path:
    """Where the model is made that is to replace the folder's."""
    return folder.with_name(f".{folder.name}-new")


def _former_of(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}-old")


def discard(folder: Path) -> bool:
    """Deletes a folder that is no longer needed; returns whether the folder is gone.

    On NFS a file that a dying process still holds open remains as .nfsXXXX for a while, and so
    does its folder. A finished search must not fail because of this, so no error is raised.
    """
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


def replace_text(path: Path, text: str) -> None:
    """Writes a file atomically: readers see either the whole old text or the whole new text."""
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, prefix=f".{path.name}", encoding="utf-8", delete=False
    ) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).chmod(0o644)
    Path(file.name).replace(path)
