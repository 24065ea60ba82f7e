"""attempts.csv in a training's folder, which lists the epochs begun, and the folder's lock."""

import contextlib
import csv
import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import filelock

from hpo.errors import RunError
from sgformer.disk import noticing_full_disk

# Workers of a killed driver go on training for some seconds.
PATIENCE_SECONDS: Final = 120.0
COLUMNS: Final = ("started_at", "hostname", "pid", "epoch")


class Attempts:
    """The epochs begun in a folder, with time and process; a crash leaves a repeated epoch."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "attempts.csv"

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Waits until no other process trains in the folder, then locks it for the block.

        Raises:
            RunError: Another process still trains in the folder after two minutes.
        """
        lock = filelock.FileLock(self.path.parent / ".lock", thread_local=False)
        with noticing_full_disk(self.path.parent):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                # Loader processes inherit the open file, but the library unlocks it, and does not
                # only close it.
                lock.acquire(timeout=PATIENCE_SECONDS)
            except filelock.Timeout:
                raise RunError(
                    f"another process trains in {self.path.parent}; if none does, remove "
                    f"{lock.lock_file}"
                ) from None
        try:
            yield
        finally:
            lock.release()

    def note(self, epoch: int) -> None:
        """Appends a row for an epoch that is about to begin."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        row = f"{now},{socket.gethostname()},{os.getpid()},{epoch}\n"
        known = self._text()
        start = "" if known.endswith("\n") else "\n" if known else ",".join(COLUMNS) + "\n"
        with noticing_full_disk(self.path.parent), self.path.open("a", encoding="utf-8") as file:
            file.write(start + row)

    def epochs(self) -> tuple[int, ...]:
        """Numbers of the epochs begun, in order, without lines that a full disk truncated."""
        rows = csv.reader(self._text().splitlines())
        return tuple(int(row[3]) for row in rows if len(row) == len(COLUMNS) and row[3].isdigit())

    def count(self) -> int:
        return len(self.epochs())

    def _text(self) -> str:
        return self.path.read_text(encoding="utf-8") if self.path.exists() else ""
