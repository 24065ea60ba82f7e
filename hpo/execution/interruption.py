"""SIGINT, SIGTERM and SIGHUP end a search in an orderly way, with a message how to resume."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final

from hpo.errors import RunInterrupted

# A closed terminal sends SIGHUP.
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Repeated signals within this time count as one: parents pass Ctrl-C on, users press it twice.
SECONDS_OF_ONE: Final = 10.0


class Interruption:
    """A signal handler that raises KeyboardInterrupt, once for signals in quick succession.

    Attributes:
        is_requested: Whether a signal has arrived.
        is_noted_only: Whether the first signal raises nothing and only sets `is_requested`.
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


def hear_signals_to_the_end() -> None:
    """Handles signals from now until this process ends, for a program that does nothing else.

    A signal that is repeated just after `interruptible` has ended, before the program has printed
    its last message, would otherwise meet the former handler, which kills the process.
    """
    _install(Interruption())


@contextlib.contextmanager
def interruptible(message: str) -> Iterator[None]:
    """Ends the block with RunInterrupted on a signal, whatever exception the signal causes.

    An ignored SIGHUP, as under nohup, stays ignored; SIGINT and SIGTERM are handled even if a
    shell started the process in the background with them ignored. Outside the main thread
    nothing is changed, because Python handles signals only in the main thread.

    Args:
        message: The message of RunInterrupted.

    Raises:
        RunInterrupted: A signal arrived.
    """
    with _handling() as interruption:
        try:
            yield
        except (KeyboardInterrupt, SystemExit):  # Ray's own handler exits while Ray starts
            raise RunInterrupted(message) from None
        except Exception as error:
            if interruption.is_requested and not isinstance(error, RunInterrupted):
                raise RunInterrupted(message) from error
            raise


@contextlib.contextmanager
def noting_interruption() -> Iterator[Callable[[], bool]]:
    """Yields a function that tells whether a signal arrived; only a later, second one raises."""
    with _handling() as interruption:
        interruption.is_noted_only = True
        try:
            yield lambda: interruption.is_requested
        finally:
            interruption.is_noted_only = False


def noting_sigterm() -> Callable[[], bool]:
    """From now on a first SIGTERM raises nothing; returns a function that tells whether it came.

    A second one ends the process. Outside the main thread, where Python handles no signals, the
    function never says so.
    """
    is_requested = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        if is_requested.is_set():
            raise SystemExit(1)
        is_requested.set()

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, note)
    return is_requested.is_set


@contextlib.contextmanager
def keeping_the_handler() -> Iterator[None]:
    """Restores the search's SIGTERM handler after a block that replaces it, as Ray does."""
    present = _present()
    try:
        yield
    finally:
        if present is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, present)


def ignore_signals() -> None:
    """Ignores all further signals, so that a process that is ending can print its last message."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def _handling() -> Iterator[Interruption]:
    """Yields the installed handler, or installs a new one for the block."""
    present = _present()
    if present is not None:
        yield present
        return
    interruption = Interruption()
    former = _install(interruption)
    try:
        yield interruption
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _install(interruption: Interruption) -> dict[signal.Signals, Any]:
    """Installs a handler in the main thread; returns the former handlers of its signals."""
    former = dict[signal.Signals, Any]()
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            is_ignored = signal.getsignal(number) == signal.SIG_IGN
            if not (is_ignored and number == signal.SIGHUP):
                former[number] = signal.signal(number, interruption)
    return former


def _present() -> Interruption | None:
    handlers = map(signal.getsignal, SIGNALS)
    return next((one for one in handlers if isinstance(one, Interruption)), None)
