"""Feeds a tracker from a thread of its own, so that the search waits for none."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from hpo.study.trial import TrialSummary
from hpo.tracking.mirror import Mirror
from hpo.tracking.tracker import News, Tracker

if TYPE_CHECKING:
    from hpo.run import Run
    from hpo.tracking.search_end import SearchEnd

MOST_ROWS: Final = 20_000  # epochs that wait to be sent, some 20 MB
SECONDS_AWAY: Final = 30.0  # until it is tried again to send what could not be sent


class Feed:
    """Sends what a search tells of its trials to a tracker, in a thread.

    What waits is kept by trial, so a slow tracker gets several epochs at a time. If more than
    MOST_ROWS wait, the trials that add more are left out, and are sent at the end from what the
    run has recorded, as is whatever else is missing then.

    Args:
        tracker: Gets the trials.
        mirror: The tracker's.
        note: Is told of what the user should know, in any thread.
    """

    def __init__(self, tracker: Tracker, mirror: Mirror, note: Callable[[str], None]) -> None:
        self.tracker = tracker
        self._mirror, self._note = mirror, note
        self._waiting: dict[int, News] = {}
        self._num_rows = 0
        self._left_out: set[int] = set()
        self._recorded: Sequence[TrialSummary] = ()
        self._final: tuple[SearchEnd, Run] | None = None
        self._is_over = self._is_away = self._has_all = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=tracker.name, daemon=True)

    # The search's side

    def begin(self, trials: Sequence[TrialSummary]) -> None:
        """Starts; what the tracker lacks of trials that an earlier run left is sent first."""
        self._recorded = trials
        self._thread.start()

    def tell(self, number: int, told: News) -> None:
        """Adds news of a trial to what waits."""
        with self._changed:
            if number in self._left_out:
                return
            if self._num_rows + len(told.rows) > MOST_ROWS:
                self._leave_out(number)
                return
            waiting = self._waiting.get(number)
            self._put(number, told if waiting is None else waiting.then(told))
            self._changed.notify()

    def finish(self, final: "tuple[SearchEnd, Run] | None", seconds: float) -> bool:
        """Sends what is missing, and how the search ended; returns whether the tracker has all.

        Args:
            final: How the search ended, and the run; None: the study cannot be read, and only
                what waits is sent.
            seconds: How long that may take.
        """
        trials = () if final is None else final[1].trials  # read in this thread
        with self._changed:
            self._recorded, self._final, self._is_over = trials, final, True
            self._changed.notify()
        self._thread.join(seconds)
        return self._has_all and final is not None

    def _leave_out(self, number: int) -> None:
        if not self._left_out:
            self._note(
                f"{self.tracker.name} is slower than the search; it gets the rest at the end"
            )
        self._left_out.add(number)
        self._take(number)

    def _put(self, number: int, news: News) -> None:
        self._take(number)
        self._waiting[number] = news
        self._num_rows += len(news.rows)

    def _take(self, number: int) -> News | None:
        news = self._waiting.pop(number, None)
        self._num_rows -= 0 if news is None else len(news.rows)
        return news

    # The thread's side

    def _run(self) -> None:
        while True:
            is_over = self._is_over
            has_sent = self._try(self._send_all)
            if is_over:
                self._has_all = self._try(self.tracker.close) and has_sent
                return
            self._wait(None if has_sent else time.monotonic() + SECONDS_AWAY)

    def _wait(self, until: float | None) -> None:
        """Waits for the end, or until something waits, or if a time is given until then."""
        with self._changed:
            while not self._is_over:
                left = None if until is None else until - time.monotonic()
                if self._waiting if left is None else left <= 0:
                    return
                self._changed.wait(left)

    def _send_all(self) -> None:
        """Sends all that waits; at the end also what was left out, and how the search ended."""
        self._mirror.begin()
        recorded, final = self._recorded, self._final
        if final is None:
            self._mirror.send_recorded(recorded)
            if recorded is self._recorded:
                self._recorded = ()
        while self._send_first():
            pass
        if final is not None:
            self._mirror.send_recorded(recorded)
            self.tracker.finish(*final)

    def _send_first(self) -> bool:
        """Sends the news that have waited longest; returns whether any have."""
        with self._changed:
            number = next(iter(self._waiting), None)
            news = None if number is None else self._take(number)
        if number is None or news is None:
            return False
        try:
            self._mirror.send(number, news)
        except Exception:
            with self._changed:  # whatever came meanwhile stays after it
                later = self._waiting.get(number)
                self._put(number, news if later is None else news.then(later))
            raise
        return True

    def _try(self, work: Callable[[], None]) -> bool:
        """Does some work; returns whether it could be done. A tracker never ends a search."""
        try:
            work()
        except Exception as error:
            if not self._is_away:
                logging.getLogger(__name__).debug("%s", self.tracker.name, exc_info=True)
                said = said_by(error)
                self._note(f"{self.tracker.name} gets nothing for now; the search goes on: {said}")
            self._is_away = True
            return False
        self._is_away = False
        return True


def said_by(error: Exception) -> str:
    """An error of a tracker's library as one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
