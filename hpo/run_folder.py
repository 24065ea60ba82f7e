"""The run folder: where a run's files lie, and that one process at a time works in it."""

import contextlib
import os
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import filelock
import yaml

from hpo.config.schema import SearchConfig, dump_search_config, load_search_config
from hpo.config.storage_url import sqlite_url
from hpo.errors import StudyError
from sgformer.config import TrainConfig, validate
from sgformer.errors import InputError


@dataclass(frozen=True)
class RunFolder:
    """Names of the files of a run."""

    path: Path

    @property
    def search_file(self) -> Path:
        return self.path / "search.yaml"

    @property
    def trials(self) -> Path:
        return self.path / "trials"

    @property
    def best(self) -> Path:
        return self.path / "best"

    @property
    def front(self) -> Path:
        """Folders like best/ of the Pareto front's other trials, by their numbers."""
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
    def is_delivered(self) -> bool:
        return (self.best / "export.json").exists()

    @property
    def is_complete(self) -> bool:
        """Whether everything that a finished run leaves is there."""
        return self.is_delivered and self.report.exists() and self.leaderboard.exists()

    def delivered_fingerprint(self, folder: Path | None = None) -> str | None:
        """The fingerprint of the config that best/ was trained with; None without one.

        Args:
            folder: Another one like best/.
        """
        folder = folder or self.best
        path = folder / "config.yaml"
        if not (folder / "export.json").exists() or not path.is_file():
            return None
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        return validate(TrainConfig, values, str(path)).fingerprint()

    def make(self) -> None:
        """Makes the folder; raises InputError where that is not allowed."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.path).close()
        except OSError as error:
            raise InputError(
                f"cannot write to the run folder {self.path}: {error.strerror} (--output-dir)"
            ) from None

    def storage_url(self, config: SearchConfig, storage: str | None = None) -> str:
        """The storage given, or that of the config, or the folder's own SQLite file."""
        return storage or config.study.storage or sqlite_url(self.path / "study.db")

    def load_config(self) -> SearchConfig:
        """The run's resolved search file; raises StudyError where there is none."""
        if not self.search_file.is_file():
            raise StudyError(f"not a run folder: {self.path} has no search.yaml")
        return load_search_config(self.search_file)[0]

    def save_config(self, config: SearchConfig) -> None:
        replace_text(self.search_file, dump_search_config(config))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Raises StudyError if another process works on the run."""
        lock, owner = filelock.FileLock(self.path / ".lock"), self.path / ".owner"
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            who = owner.read_text(encoding="utf-8") if owner.exists() else "one that just began"
            raise StudyError(f"another process is working on {self.path}: {who}") from None
        try:
            replace_text(owner, f"process {os.getpid()} on {socket.gethostname()}")
            yield
        finally:
            owner.unlink(missing_ok=True)
            lock.release()


def replace_text(path: Path, text: str) -> None:
    """Writes atomically: readers see the old text or the new one, whole."""
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, prefix=f".{path.name}", encoding="utf-8", delete=False
    ) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).chmod(0o644)
    Path(file.name).replace(path)
