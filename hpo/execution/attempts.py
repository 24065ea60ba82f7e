"""attempts.csv in a training's folder, which lists the epochs begun, and the folder's lock."""

import contextlib
import csv
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import filelock

from hpo.errors import RunError
from sgformer.disk import noticing_full_disk
from sgformer.locks import lock_of

# Workers of a killed driver go on training for some seconds.
PATIENCE_SECONDS: Final = 120.0
COLUMNS: Final = ("started_at", "hostname", "pid", "epoch")


class Attempts:
    """The epochs begun in a folder, with time and process; a crash leaves a repeated epoch.

    An epoch that goes on where an orderly end had left it has a row of its own, such as `3.12`
    for epoch 3 after 12 steps, which does not count.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "attempts.csv"

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Waits until no other process trains in the folder, then locks it for the block.

        Raises:
            RunError: Another process still trains in the folder after two minutes.
        """
        with noticing_full_disk(self.path.parent):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = lock_of(self.path.parent / ".lock")
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

    def begin(self, epoch: int, num_steps: int = 0, *, only_val: bool = False) -> None:
        """Notes that an epoch begins, or that it goes on after `num_steps` steps.

        One that goes on counts again if it has gone on from there before: what came then is lost,
        unless `only_val` says that all of its steps are done.
        """
        known = self._entries()
        goes_on = f"{epoch}.{num_steps}"
        is_lost = goes_on in known and not only_val
        counts = num_steps == 0 or str(epoch) not in known or is_lost
        self.note(str(epoch) if counts else goes_on)

    def note(self, epoch: int | str) -> None:
        """Appends a row for an epoch that is about to begin."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        row = f"{now},{socket.gethostname()},{os.getpid()},{epoch}\n"
        known = self._text()
        start = "" if known.endswith("\n") else "\n" if known else ",".join(COLUMNS) + "\n"
        with noticing_full_disk(self.path.parent), self.path.open("a", encoding="utf-8") as file:
            file.write(start + row)

    def epochs(self) -> tuple[int, ...]:
        """Numbers of the epochs begun, in order, without lines that a full disk truncated."""
        return _epochs(self._text())

    def count(self) -> int:
        return len(self.epochs())

    def _entries(self) -> list[str]:
        """The last column of each whole row."""
        return _entries(self._text())

    def _text(self) -> str:
        return self.path.read_text(encoding="utf-8") if self.path.exists() else ""


@dataclass(frozen=True)
class Begun:
    """An epoch that began, or went on.

    Attributes:
        at: When, in seconds since 1970, to the second.
        process: Host and number of the process.
        epoch: The epoch's number.
    """

    at: float
    process: str
    epoch: int


def begun_epochs(text: str) -> Iterator[Begun]:
    """The epochs in the text of an attempts.csv, without lines that a full disk truncated."""
    for row in csv.reader(text.splitlines()):
        if len(row) == len(COLUMNS) and (number := row[-1].partition(".")[0]).isdigit():
            at = datetime.fromisoformat(row[0]).timestamp()
            yield Begun(at, f"{row[1]}, process {row[2]}", int(number))


def num_begun(text: str) -> int:
    """The number of epochs begun, by the text of an attempts.csv."""
    return len(_epochs(text))


def _epochs(text: str) -> tuple[int, ...]:
    return tuple(int(entry) for entry in _entries(text) if entry.isdigit())


def _entries(text: str) -> list[str]:
    rows = csv.reader(text.splitlines())
    return [row[-1] for row in rows if len(row) == len(COLUMNS)]
