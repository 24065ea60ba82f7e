"""One driver at a time works on a study: who it is, and whether it still lives."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, Self

from hpo.errors import StudyError
from hpo.study.storage import AWAY
from hpo.study.study import SearchStudy

SECONDS_BETWEEN_BEATS: Final = 20.0
DEAD_AFTER_SECONDS: Final = 90.0


@dataclass(frozen=True)
class Driver:
    """A process that runs a search.

    Attributes:
        hostname: Its machine.
        pid: Its number there.
        started: When it started, in clock ticks since its machine did: numbers are used again.
        beat: When it was last heard of, in seconds since 1970.
    """

    hostname: str
    pid: int
    started: int
    beat: float

    @classmethod
    def this(cls) -> Self:
        pid = os.getpid()
        return cls(socket.gethostname(), pid, _start_of(pid) or 0, time.time())

    def is_alive(self) -> bool:
        """By its number on this machine, by its last beat on another."""
        if self.hostname == socket.gethostname():
            return _start_of(self.pid) == self.started
        return time.time() - self.beat < DEAD_AFTER_SECONDS

    def is_same(self, other: "Driver") -> bool:
        return replace(self, beat=0) == replace(other, beat=0)


@contextlib.contextmanager
def leased(study: SearchStudy) -> Iterator[None]:
    """Keeps the study for this process.

    Raises:
        StudyError: Another one that lives has it.
    """
    me = Driver.this()
    _refuse_another(study, me)
    study.metadata.driver = asdict(me)
    study.is_ours = lambda: _is_driver(study, me)
    _refuse_another(study, me)  # of two that came at once, the later one has it
    ended = threading.Event()
    thread = threading.Thread(target=_beat, args=(study, me, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(*AWAY):
            if _is_driver(study, me):
                study.metadata.driver = None


def _refuse_another(study: SearchStudy, me: Driver) -> None:
    values = study.metadata.driver
    other = None if values is None else Driver(**values)
    if other is not None and not other.is_same(me) and other.is_alive():
        raise StudyError(
            f"another search works on this study: process {other.pid} on {other.hostname}; wait "
            f"for it, or end it (if that machine is gone, it counts as ended after "
            f"{DEAD_AFTER_SECONDS:.0f} seconds)"
        )


def _is_driver(study: SearchStudy, me: Driver) -> bool:
    values = study.metadata.driver
    return values is not None and Driver(**values).is_same(me)


def _beat(study: SearchStudy, me: Driver, ended: threading.Event) -> None:
    while not ended.wait(SECONDS_BETWEEN_BEATS):
        with contextlib.suppress(*AWAY):
            if not _is_driver(study, me):
                return  # another one has it, after an outage: ours ends at its next write
            study.metadata.driver = asdict(replace(me, beat=time.time()))


def _start_of(pid: int) -> int | None:
    """A process's start in clock ticks; None if there is no such process."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # Source: proc(5): the 22nd field; the second, in parentheses, may have anything in it.
    state, *fields = status.rpartition(")")[2].split()
    return None if state == "Z" else int(fields[18])
