"""The driver of a study: what identifies its process, whether it runs, its record."""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from enum import Enum, auto
from pathlib import Path
from typing import Any, Final, Protocol, Self

import sqlalchemy
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.storages.journal import JournalFileOpenLock

from hpo.study.storage import JournalFile
from hpo.study.tables import Tables, known_tables

KEY: Final = "driver"
SECONDS_OF_A_BEAT: Final = 120.0  # drivers beat every 20 seconds; clocks may differ
# Must be longer than a storage needs from a read to the write that follows.
SECONDS_TO_SETTLE: Final = 5.0
Values = dict[str, Any] | None
Change = Callable[[Values], Values]
IN_THIS_PROCESS: Final = threading.Lock()
# Tokens of the leases that this process holds.
HELD_HERE: Final[set[str]] = set()


class Life(Enum):
    """Whether a driver runs, as far as this process can tell without waiting."""

    RUNS = auto()
    ENDED = auto()
    UNKNOWN = auto()


@dataclass(frozen=True)
class Driver:
    """A process that drives a study, as the study records it.

    Two records are of the same driver (`is_same`) if they differ in nothing but `beat`.

    Attributes:
        hostname: The name of the process's machine; several machines may have the same.
        pid: The process's id on that machine.
        started: When the process started, in clock ticks since its machine did; tells processes
            with the same id apart.
        beat: When the process last gave a sign of life, in seconds since 1970 by its own clock.
        boot: Id of its machine's start; "": not known, as in studies of older versions.
        pids: The namespace that `pid` belongs to (a container's, say); "": not known.
        token: Tells two leases of one process apart.
    """

    hostname: str
    pid: int
    started: int
    beat: float
    boot: str = ""
    pids: str = ""
    token: str = ""

    @classmethod
    def this(cls) -> Self:
        """This process, with a new token."""
        pid = os.getpid()
        return cls(
            hostname=socket.gethostname(),
            pid=pid,
            started=_start_of(pid) or 0,
            beat=time.time(),
            boot=_boot(),
            pids=_pid_namespace(),
            token=uuid.uuid4().hex,
        )

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """The driver in a study's attribute; leaves out fields that newer versions add."""
        known = cls.__dataclass_fields__.keys()
        return cls(**{name: value for name, value in values.items() if name in known})

    def values(self) -> dict[str, Any]:
        """The driver as a study's attribute."""
        return asdict(self)

    def beating(self) -> Self:
        """The same driver with a beat of now."""
        return replace(self, beat=time.time())

    def is_same(self, other: "Driver") -> bool:
        return replace(self, beat=0) == replace(other, beat=0)

    @property
    def life(self) -> Life:
        """Whether the driver's process still runs.

        A process id tells this only within one start of one machine and one namespace of process
        ids: containers and cloned machines may share host names.
        """
        is_here = (self.boot, self.pids) == (_boot(), _pid_namespace())
        if not is_here or not self.boot or not self.pids:
            return Life.UNKNOWN
        if self.pid == os.getpid() and self.token not in HELD_HERE:
            return Life.ENDED
        return Life.RUNS if _start_of(self.pid) == self.started else Life.ENDED


def is_driven(values: Values) -> bool:
    """Whether a search runs by its driver's record: its process does, or just gave a sign."""
    if values is None:
        return False
    driver = Driver.of(values)
    if driver.life == Life.UNKNOWN:
        return time.time() - driver.beat < SECONDS_OF_A_BEAT
    return driver.life == Life.RUNS


class DriverRecord(Protocol):
    """The record of a study's driver, kept in the study's storage."""

    def read(self) -> Values:
        """The driver's values as recorded now; None: nobody drives the study."""

    def update(self, change: Change) -> None:
        """Replaces the recorded values by `change` of them; if `change` raises, keeps them."""


def driver_record(storage: BaseStorage, study_id: int) -> DriverRecord:
    """The driver record of a study, under the strictest lock that its storage has."""
    tables = known_tables(storage)
    if tables is not None:
        return TableRecord(tables, study_id)
    if isinstance(storage, JournalFile):
        return JournalRecord(storage, study_id)
    return OtherRecord(storage, study_id)


class TableRecord:
    """A record in a relational storage; each update is a transaction under the study's lock."""

    def __init__(self, tables: Tables, study_id: int) -> None:
        self._tables, self._study_id = tables, study_id
        self._table = tables.study_attributes
        columns = self._table.c
        self._is_ours = (columns.study_id == study_id) & (columns.key == KEY)

    def read(self) -> Values:
        with self._tables.engine.connect() as connection:
            return self._read(connection)

    def update(self, change: Change) -> None:
        with self._tables.engine.begin() as connection:
            self._tables.lock(connection, self._study_id)
            kept = json.dumps(change(self._read(connection)))
            connection.execute(self._table.delete().where(self._is_ours))
            row = {"study_id": self._study_id, "key": KEY, "value_json": kept}
            connection.execute(self._table.insert(), row)

    def _read(self, connection: sqlalchemy.Connection) -> Values:
        query = sqlalchemy.select(self._table.c.value_json).where(self._is_ours)
        kept = connection.scalar(query)
        values: Values = None if kept is None else json.loads(kept)
        return values


class OtherRecord:
    """A record in a storage without locks: after a write all wait, and the last writer wins.

    Source: Fischer's mutual exclusion, in Lamport, "A fast mutual exclusion algorithm", 1987; it
    is safe if a read and the write that follows take less time than the wait.
    """

    def __init__(self, storage: BaseStorage, study_id: int) -> None:
        self._storage, self._study_id = storage, study_id
        is_shared = not isinstance(storage, InMemoryStorage)
        self._seconds = SECONDS_TO_SETTLE if is_shared else 0.0

    def read(self) -> Values:
        values: Values = self._storage.get_study_user_attrs(self._study_id).get(KEY)
        return values

    def update(self, change: Change) -> None:
        with self._exclusive():
            old = self.read()
            new = change(old)
            self._storage.set_study_user_attr(self._study_id, KEY, new)
        if new is not None and (old or {}).get("token") != new["token"]:
            time.sleep(self._seconds)
            change(self.read())

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        with IN_THIS_PROCESS:
            yield


class JournalRecord(OtherRecord):
    """A record in a journal file, locked by a file of its own in the way Optuna locks it."""

    def __init__(self, storage: JournalFile, study_id: int) -> None:
        super().__init__(storage, study_id)
        self._seconds = 0.0
        self._file_lock = JournalFileOpenLock(f"{storage.path}.driver")

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        self._file_lock.acquire()
        try:
            yield
        finally:
            self._file_lock.release()


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _pid_namespace() -> str:
    """The namespace of this process's id; "" where /proc belongs to another namespace."""
    try:
        if Path("/proc/self").readlink().name != str(os.getpid()):
            return ""
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _start_of(pid: int) -> int | None:
    """A process's start, in clock ticks since its machine's; None: no such process runs."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # Source: proc(5): field 22 is the start; field 2, in parentheses, may hold any character.
    state, *fields = status.rpartition(")")[2].split()
    return None if state == "Z" else int(fields[18])
