"""SIGINT, SIGTERM and SIGHUP: they end a search once, in an orderly way, and say how to go on."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final

from hpo.errors import RunInterrupted

# SIGHUP comes when a terminal is closed.
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# A process gets one Ctrl-C twice where its parent passes it on; and hands are impatient.
SECONDS_OF_ONE: Final = 10.0


class Interruption:
    """A signal handler that raises KeyboardInterrupt, once for signals that come together.

    Attributes:
        is_requested: Whether a signal has come.
        is_noted_only: Whether the first signal raises nothing, since somebody asks for it.
    """

    def __init__(self) -> None:
        self.is_requested = self.is_noted_only = False
        self._last_heard = 0.0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.is_requested and now - self._last_heard < SECONDS_OF_ONE:
            return
        is_first = not self.is_requested
        self.is_requested, self._last_heard = True, now
        if not (is_first and self.is_noted_only):
            raise KeyboardInterrupt


@contextlib.contextmanager
def interruptible(message: str) -> Iterator[None]:
    """Has a signal end the block with RunInterrupted, whatever that makes other code raise.

    A SIGHUP that is ignored stays ignored, as under nohup; the others are heard even where a
    shell has started the process in the background. Outside the main thread nothing is changed:
    only that one hears of signals.

    Args:
        message: What RunInterrupted says.

    Raises:
        RunInterrupted: A signal came.
    """
    with _handling() as interruption:
        try:
            yield
        except (KeyboardInterrupt, SystemExit):  # while Ray starts, its own handler exits
            raise RunInterrupted(message) from None
        except Exception as error:
            if interruption.is_requested and not isinstance(error, RunInterrupted):
                raise RunInterrupted(message) from error
            raise


@contextlib.contextmanager
def noting_interruption() -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether a signal came; only a second one, later, raises."""
    with _handling() as interruption:
        interruption.is_noted_only = True
        try:
            yield lambda: interruption.is_requested
        finally:
            interruption.is_noted_only = False


@contextlib.contextmanager
def keeping_the_handler() -> Iterator[None]:
    """Puts a search's handler back after a block that installs another one, as Ray does."""
    present = _present()
    try:
        yield
    finally:
        if present is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, present)


def ignore_signals() -> None:
    """Has nothing interrupt the last words of a process that ends anyway."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def _handling() -> Iterator[Interruption]:
    """The handler in force, or a new one for the block."""
    present = _present()
    if present is not None:
        yield present
        return
    interruption, former = Interruption(), dict[signal.Signals, Any]()
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            is_ignored = signal.getsignal(number) == signal.SIG_IGN
            if not (is_ignored and number == signal.SIGHUP):
                former[number] = signal.signal(number, interruption)
    try:
        yield interruption
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _present() -> Interruption | None:
    handlers = map(signal.getsignal, SIGNALS)
    return next((one for one in handlers if isinstance(one, Interruption)), None)
