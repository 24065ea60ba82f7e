"""attempts.csv of a training's folder: lists the epochs begun, and locks the folder."""

import contextlib
import csv
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from hpo.errors import RunError
from sgformer.disk import noticing_full_disk

# Workers of a driver that was killed live on for some seconds.
PATIENCE_SECONDS: Final = 120.0
COLUMNS: Final = ("started_at", "hostname", "pid", "epoch")


class Attempts:
    """The epochs begun in a folder, when and by which process; a crash shows as a repeated one."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "attempts.csv"

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Waits until no other process trains in the folder, then keeps others out.

        Raises:
            RunError: Another process still trains there after two minutes.
        """
        with noticing_full_disk(self.path.parent):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = self.path.open("a", encoding="utf-8")
        with file:
            end = time.monotonic() + PATIENCE_SECONDS
            while not _is_locked(file.fileno()):
                if time.monotonic() > end:
                    raise RunError(f"another process trains in {self.path.parent}")
                time.sleep(0.1)
            try:
                yield
            finally:
                # Loader processes have inherited the file, so closing it here would not unlock it.
                fcntl.flock(file.fileno(), fcntl.LOCK_UN)

    def note(self, epoch: int) -> None:
        """Notes that an epoch is about to be trained."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        row = f"{now},{socket.gethostname()},{os.getpid()},{epoch}\n"
        known = self._text()
        start = "" if known.endswith("\n") else "\n" if known else ",".join(COLUMNS) + "\n"
        with noticing_full_disk(self.path.parent), self.path.open("a", encoding="utf-8") as file:
            file.write(start + row)

    def epochs(self) -> tuple[int, ...]:
        """The epochs begun, in order; lines that a full disk cut short are left out."""
        rows = csv.reader(self._text().splitlines())
        return tuple(int(row[3]) for row in rows if len(row) == len(COLUMNS) and row[3].isdigit())

    def count(self) -> int:
        return len(self.epochs())

    def _text(self) -> str:
        return self.path.read_text(encoding="utf-8") if self.path.exists() else ""


def _is_locked(descriptor: int) -> bool:
    """Takes the lock if nobody has it, and says whether; a process that dies gives it back."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
