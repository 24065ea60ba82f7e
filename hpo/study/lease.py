"""The lease: one driver at a time takes a study, keeps it, and notices if it loses it."""

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from hpo.errors import StudyError
from hpo.study.driver import HELD_HERE, Change, Driver, DriverRecord, Life, Values
from hpo.study.gate import AWAY
from hpo.study.study import SearchStudy

# Errors of a storage that does not answer or cannot write now, but may later.
PASSING: Final = (*AWAY, OSError)


@dataclass(frozen=True)
class LeaseTimes:
    """The durations of a lease, in seconds.

    A new driver may be unable to look up the old driver's process, as that ran on another
    machine, in another container, or before the machine's last start. Then it watches the old
    driver's beat by its own clock; a beat that changes means that the old driver lives. The watch
    ends `dead_after` seconds after the old driver's last beat, if the clocks agree, and takes
    `least_watch` seconds at least. If the last beat is more than `surely_dead` seconds old, there
    is no watch.

    Attributes:
        between_beats: From one beat to the next.
        dead_after: A driver without a beat for this long counts as ended.
        least_watch: The shortest watch; more than two beats.
        surely_dead: Longer than clocks differ: one set to local time is up to 14 hours off.
        unconfirmed: A driver whose own last successful beat is older than this asks the storage
            whether the study is still its own before it writes; less than `least_watch`.
        to_end: The longest wait for a beat that is under way when the driver ends.
    """

    between_beats: float = 20.0
    dead_after: float = 90.0
    least_watch: float = 45.0
    surely_dead: float = 86_400.0
    unconfirmed: float = 40.0
    to_end: float = 10.0


class Lease:
    """This process's hold on a study; `token` tells it from other leases."""

    def __init__(self, study: SearchStudy, times: LeaseTimes) -> None:
        self._study, self._times = study, times
        self._record: DriverRecord = study.driver_record()
        self._me = Driver.this()
        self._confirmed = -float("inf")
        self._is_lost = False
        self._ended = threading.Event()
        self._heart = _Outcome()

    @property
    def token(self) -> str:
        return self._me.token

    def take(self, tell: Callable[[str], None]) -> None:
        """Makes this process the study's driver.

        Raises:
            StudyError: Another process that lives drives the study.
        """
        seen, is_taken = self._record.read(), False
        while not is_taken:
            self._wait_for_end(seen, tell)
            claim = functools.partial(self._claim, seen=seen)
            try:
                self._study.gate.write(functools.partial(_update, self._record, claim))
                is_taken = True
            except _ChangedError as changed:
                seen = changed.values_now
        self._confirmed = _seconds_awake_or_not()

    def _claim(self, now: Values, seen: Values) -> Values:
        if now != seen and not self._is_mine(now):
            raise _ChangedError(now)
        return self._me.beating().values()

    def _is_mine(self, values: Values) -> bool:
        return values is not None and Driver.of(values).is_same(self._me)

    def _wait_for_end(self, values: Values, tell: Callable[[str], None]) -> None:
        """Returns once the recorded driver has ended; raises StudyError if it lives."""
        if values is None or self._is_mine(values):
            return
        other = Driver.of(values)
        if other.life is Life.RUNS:
            raise self._refusal(other)
        age = time.time() - other.beat
        if other.life is Life.ENDED or age > self._times.surely_dead:
            return
        seconds = max(self._times.least_watch, self._times.dead_after - max(0.0, age))
        tell(
            f"process {other.pid} on {other.hostname} had this study; waiting {seconds:.0f} "
            "seconds to see whether it still lives"
        )
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(min(1.0, self._times.between_beats / 4))
            now = self._record.read()
            if now is None:
                return
            if now != values:
                raise self._refusal(Driver.of(now))

    def _refusal(self, other: Driver) -> StudyError:
        return StudyError(
            f"another search works on this study: process {other.pid} on {other.hostname}; wait "
            f"for it, or end it (if that machine is gone, the search counts as ended once it has "
            f"not been heard of for {self._times.dead_after:.0f} seconds)"
        )

    def check(self, *, surely: bool) -> None:
        """Raises StudyError if another process has become the study's driver.

        Asks the storage if `surely` is set, or if the last successful beat is too old: this
        process may have been halted, so that another one concluded that it had ended.
        """
        if self._heart.error is not None:
            raise self._heart.error
        is_fresh = _seconds_awake_or_not() - self._confirmed < self._times.unconfirmed
        if not self._is_lost and (surely or not is_fresh):
            self._is_lost = not self._is_mine(self._record.read())
            self._confirmed = _seconds_awake_or_not()
        if self._is_lost:
            raise StudyError(
                f"another search has taken up study {self._study.name!r} meanwhile, and goes on "
                "with its trials; this one stops"
            )

    @contextlib.contextmanager
    def beating(self, tell: Callable[[str], None]) -> Iterator[None]:
        """Beats while the block runs, and then gives the study back."""
        thread = threading.Thread(target=self._run, args=(tell,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join(self._times.to_end)
            if not thread.is_alive():  # else the storage hangs, and this thread would too
                with contextlib.suppress(*PASSING, _ChangedError):
                    self._record.update(self._given_back)

    def _given_back(self, now: Values) -> Values:
        if not self._is_mine(now):
            raise _ChangedError(now)
        return None

    def _run(self, tell: Callable[[str], None]) -> None:
        with self._heart:
            while not self._ended.wait(self._times.between_beats) and not self._is_lost:
                self._beat(tell)

    def _beat(self, tell: Callable[[str], None]) -> None:
        begin = _seconds_awake_or_not()
        try:
            self._record.update(self._beaten)
        except _ChangedError:
            self._is_lost = True
        except PASSING as error:
            if not isinstance(error, AWAY):  # the gate tells of outages
                tell(f"the study's storage took no sign of life: {error}")
        else:
            self._confirmed = begin

    def _beaten(self, now: Values) -> Values:
        if not self._is_mine(now):
            raise _ChangedError(now)
        return self._me.beating().values()


class _Outcome(contextlib.AbstractContextManager["_Outcome"]):
    """Keeps the exception of a block in another thread, for this thread to raise."""

    error: BaseException | None = None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        self.error = error
        return True


class _ChangedError(Exception):
    """The recorded driver is not the one that was expected; `values_now` is the record."""

    def __init__(self, values_now: Values) -> None:
        super().__init__(values_now)
        self.values_now = values_now


@contextlib.contextmanager
def leased(
    study: SearchStudy,
    tell: Callable[[str], None] = lambda _text: None,
    times: LeaseTimes = LeaseTimes(),
) -> Iterator[None]:
    """Holds the study for this process while the block runs; nested in itself it does nothing.

    Args:
        study: The study; its gate refuses writes once another process drives the study.
        tell: Is called with a message when another driver is watched, and when a beat fails.
        times: The durations of the lease.

    Raises:
        StudyError: Another process that lives drives the study.
    """
    if study.gate.hold is not None:
        yield
        return
    lease = Lease(study, times)
    HELD_HERE.add(lease.token)
    try:
        lease.take(tell)
        study.gate.hold = lease
        with lease.beating(tell):
            yield
    finally:
        study.gate.hold = None
        HELD_HERE.discard(lease.token)


def _update(record: DriverRecord, change: Change, _is_retry: bool) -> None:
    record.update(change)


def _seconds_awake_or_not() -> float:
    """Seconds of a clock that nobody sets, and that goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
