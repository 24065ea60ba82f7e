"""The gate: the only way by which a search writes its study, and its driver reads it.

The gate waits for a database that does not answer, and refuses writes once another driver has
the study.
"""

import time
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

import optuna
import sqlalchemy.exc

from sgformer.errors import DiskFullError

# Errors that Optuna lets through, or makes, when a database does not answer.
AWAY: Final = (sqlalchemy.exc.DBAPIError, optuna.exceptions.StorageInternalError)
PATIENCE_SECONDS: Final = 600.0
SECONDS_BETWEEN_TRIES: Final = 1.0
Result = TypeVar("Result")


class Hold(Protocol):
    """A driver's hold on a study; see lease.py."""

    def check(self, *, surely: bool) -> None:
        """Raises StudyError if another driver has the study; `surely` asks the storage."""


class StudyGate:
    """Waits for a database that is away, and refuses writes once another driver has the study.

    Attributes:
        on_outage: Is called with a message when the database goes away, and when it is back.
        hold: This process's hold on the study; None: this process does not drive the study.
    """

    def __init__(self) -> None:
        self.on_outage: Callable[[str], None] = lambda _text: None
        self.hold: Hold | None = None

    def write(self, action: Callable[[bool], Result]) -> Result:
        """Runs a writing action, once the storage answers; returns its result.

        Args:
            action: Takes whether it was tried before; then the earlier try may have been done,
                with its answer lost.

        Raises:
            StudyError: Another driver has the study.
            DiskFullError: The storage's disk is full.
        """

        def attempt(is_retry: bool) -> Result:
            if self.hold is not None:
                self.hold.check(surely=is_retry)
            return action(is_retry)

        return patiently(attempt, self.on_outage)

    def read(self, action: Callable[[], Result]) -> Result:
        """Runs a reading action; only a driver waits for a database that is away."""
        if self.hold is None:
            return action()
        return patiently(lambda _is_retry: action(), self.on_outage)


def patiently(action: Callable[[bool], Result], on_outage: Callable[[str], None]) -> Result:
    """Runs an action; while the database is away, tries it again for ten minutes.

    Args:
        action: Takes whether it was tried before; then the earlier try may have been done, with
            its answer lost.
        on_outage: Is called with a message once when the outage begins, and once at its end.

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
