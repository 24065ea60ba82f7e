"""Opens Optuna storages by their URLs."""

import contextlib
import sqlite3
from pathlib import Path
from typing import Any, Final

import sqlalchemy
import sqlalchemy.event
import sqlalchemy.exc
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, get_storage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from hpo.config.storage_url import (
    HOW_TO_ENCODE,
    JOURNAL_PREFIX,
    file_of,
    is_encoded,
    is_in_memory,
)
from hpo.config.storage_url import with_absolute_path as with_absolute_path
from hpo.config.storage_url import without_password as without_password
from hpo.errors import StudyError
from sgformer.disk import file_system, is_on_a_network

SECONDS_TO_WAIT: Final = 60  # for another process that has SQLite's file
UNUSABLE: Final = (ImportError, OSError, ValueError, sqlite3.Error, sqlalchemy.exc.SQLAlchemyError)
EXAMPLES: Final = "sqlite:///study.db, postgresql+psycopg://user@host/database, or journal:PATH"


class JournalFile(JournalStorage):
    """A storage in one file, at `path`, that grows with every write.

    Its lock is a file that is created exclusively, which every network file system honours; some
    of them have no symbolic links, by which Optuna would lock.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(JournalFileBackend(str(path), JournalFileOpenLock(str(path))))
        self.path = path


def open_storage(url: str) -> BaseStorage:
    """An Optuna storage: a database URL, or `journal:PATH`.

    Raises:
        StudyError: The URL is invalid, its database driver is not installed, or no database
            answers there.
    """
    check_storage_url(url)
    try:
        if url.startswith(JOURNAL_PREFIX):
            return JournalFile(Path(url.removeprefix(JOURNAL_PREFIX)))
        if url.startswith("sqlite"):
            return _open_sqlite(url)
        return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
    except UNUSABLE as error:
        reason = " ".join(str(getattr(error, "orig", None) or error).split())
        raise StudyError(
            f"cannot use storage {without_password(url)}: {reason} (--storage)"
        ) from None


def open_cached_storage(url: str) -> BaseStorage:
    """The storage as Optuna's studies use it: trials that ended are read once.

    Raises:
        StudyError: `open_storage` raises it.
    """
    return get_storage(open_storage(url))


def _open_sqlite(url: str) -> RDBStorage:
    """Opens SQLite with a write-ahead log: a dashboard can read while the search writes.

    Commits are not forced to the disk one by one. They survive a killed process; after a power
    cut the last ones may be missing, but none is there in part. A file on a network, where such a
    log does not work, is opened without it.
    """
    file = file_of(url)
    is_shared = file is not None and is_on_a_network(file)
    if is_shared and file is not None:
        _end_write_ahead_log(file)
    storage = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": SECONDS_TO_WAIT}})
    if is_shared:
        return storage

    @sqlalchemy.event.listens_for(storage.engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    storage.engine.dispose()  # closes connections made without `configure`
    return storage


def _end_write_ahead_log(file: Path) -> None:
    """Gives a SQLite file back the rollback journal, which needs no memory that hosts share.

    In exclusive mode SQLite reads a write-ahead log without such memory, and only while no other
    process has the file open.
    """
    with contextlib.closing(sqlite3.connect(file, timeout=SECONDS_TO_WAIT)) as connection:
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.execute("PRAGMA journal_mode=DELETE")


def check_storage_url(url: str) -> None:
    """Raises StudyError if a storage URL is not usable, without opening the storage."""
    if url.startswith(JOURNAL_PREFIX):
        return
    if not is_encoded(url):  # show no part of the URL: it may be the password's
        raise StudyError(
            f"the storage URL's password holds a character that ends it: {HOW_TO_ENCODE} "
            "(HPO_STORAGE, --storage)"
        )
    if is_in_memory(url):
        raise StudyError(
            f"storage {url!r} is in memory and gone when the process ends; expected for example "
            f"{EXAMPLES} (--storage)"
        )
    try:
        sqlalchemy.make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise StudyError(
            f"not a storage URL: {without_password(url)!r}; expected for example {EXAMPLES} "
            "(--storage)"
        ) from None
    _refuse_new_sqlite_on_a_network(url)


def _refuse_new_sqlite_on_a_network(url: str) -> None:
    file = file_of(url)
    if file is None or file.exists() or not is_on_a_network(file):
        return
    raise StudyError(
        f"storage {url} would be SQLite on a network's file system ({file_system(file)}), where "
        f"several hosts can damage it; give a journal file (journal:{file.with_suffix('')}"
        ".journal) or a database (postgresql+psycopg://user@host/database) (--storage)"
    )


def storage_note(url: str) -> str | None:
    """What a user should know of a storage's file on a network; None: nothing."""
    file = file_of(url)
    if file is None or not is_on_a_network(file):
        return None
    where = f"{file}, on a network's file system ({file_system(file)})"
    if url.startswith(JOURNAL_PREFIX):
        return f"the study is kept in {where}: a journal file, which all nodes can read"
    return (
        f"the study is in {where}: SQLite works there without its write-ahead log, and is slower"
    )


def storage_exists(url: str) -> bool:
    """Whether a storage's file is there; True if the storage is not a file.

    Opening a storage without its file would make one.
    """
    file = file_of(url)
    return file is None or file.exists()
