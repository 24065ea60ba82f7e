"""Optuna storages by their URLs: opening, showing, and waiting for those that are away."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import optuna
import sqlalchemy
import sqlalchemy.event
import sqlalchemy.exc
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from hpo.errors import StudyError
from sgformer.errors import DiskFullError

JOURNAL_PREFIX: Final = "journal:"
SQLITE_PREFIX: Final = "sqlite:///"
# What a database that does not answer raises, by way of Optuna.
AWAY: Final = (sqlalchemy.exc.DBAPIError, optuna.exceptions.StorageInternalError)
PATIENCE_SECONDS: Final = 600.0
SECONDS_BETWEEN_TRIES: Final = 1.0
Result = TypeVar("Result")


def patiently(action: Callable[[bool], Result], on_outage: Callable[[str], None]) -> Result:
    """The action's result; while the database is away, it is tried again for ten minutes.

    Args:
        action: Takes whether it was tried before: then it may have been done without our
            having heard of it.
        on_outage: Hears once of an outage, and once of its end.

    Raises:
        DiskFullError: The storage's disk is full.
    """
    start, is_retry = time.monotonic(), False
    while True:
        try:
            result = action(is_retry)
        except AWAY as error:
            if _is_disk_full(error):
                raise DiskFullError(f"the study's storage: {_reason(error)}") from error
            if not _is_outage(error) or time.monotonic() - start > PATIENCE_SECONDS:
                raise
            if not is_retry:
                on_outage(f"the study's database does not answer, waiting: {_reason(error)}")
            is_retry = True
            time.sleep(SECONDS_BETWEEN_TRIES)
        else:
            if is_retry:
                on_outage("the study's database answers again")
            return result


def _database_error(error: BaseException | None) -> sqlalchemy.exc.DBAPIError | None:
    while error is not None and not isinstance(error, sqlalchemy.exc.DBAPIError):
        error = error.__cause__
    return error


def _is_outage(error: Exception) -> bool:
    cause = _database_error(error)
    away = (sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError)
    return cause is not None and (cause.connection_invalidated or isinstance(cause, away))


def _is_disk_full(error: Exception) -> bool:
    text = str(_database_error(error) or "").lower()
    return "disk is full" in text or "no space left on device" in text


def _reason(error: Exception) -> str:
    cause = _database_error(error)
    text = str(cause.orig if cause is not None and cause.orig is not None else error)
    return " ".join(text.split())


def open_storage(url: str) -> BaseStorage:
    """An Optuna storage: a database URL, or `journal:PATH`.

    Raises:
        StudyError: The URL is none, its driver is not installed, or nobody answers there.
    """
    check_storage_url(url)
    try:
        if url.startswith(JOURNAL_PREFIX):
            path = Path(url.removeprefix(JOURNAL_PREFIX))
            return JournalStorage(JournalFileBackend(str(path)))
        if url.startswith("sqlite"):
            return _open_sqlite(url)
        return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
    except (ImportError, OSError, ValueError, sqlalchemy.exc.SQLAlchemyError) as error:
        reason = " ".join(str(getattr(error, "orig", None) or error).split())
        raise StudyError(
            f"cannot use storage {without_password(url)}: {reason} (--storage)"
        ) from None


def _open_sqlite(url: str) -> RDBStorage:
    """With a write-ahead log: a dashboard reads while the search writes, neither waits.

    Commits are not forced to the disk one by one: what was written survives a killed process,
    and after a power cut the last moments may be missing, never half there.
    """
    storage = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60}})

    @sqlalchemy.event.listens_for(storage.engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    storage.engine.dispose()  # of the connections that were made before
    return storage


def check_storage_url(url: str) -> None:
    """Raises StudyError for what is no storage URL, without opening it."""
    if url.startswith(JOURNAL_PREFIX):
        return
    try:
        sqlalchemy.make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise StudyError(
            f"not a storage URL: {without_password(url)!r}; expected for example "
            "sqlite:///study.db, postgresql+psycopg://user@host/database, or journal:PATH "
            "(--storage)"
        ) from None


def storage_exists(url: str) -> bool:
    """False for a file-based storage whose file is not there; opening it would make one."""
    for prefix in (JOURNAL_PREFIX, SQLITE_PREFIX):
        if url.startswith(prefix):
            return Path(url.removeprefix(prefix)).exists()
    return True


def without_password(url: str) -> str:
    """The URL fit for being shown and stored."""
    if url.startswith(JOURNAL_PREFIX):
        return url
    try:
        parsed = sqlalchemy.make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        return re.sub(r":[^:@/]+@", ":***@", url)
    parsed = parsed.difference_update_query(["password"])._replace(password=None)
    return parsed.render_as_string(hide_password=False)


def with_absolute_path(url: str) -> str:
    """The URL of a file-based storage, valid from any folder; others as they are."""
    for prefix in (JOURNAL_PREFIX, SQLITE_PREFIX):
        if url.startswith(prefix):
            return f"{prefix}{Path(url.removeprefix(prefix)).absolute()}"
    return url
