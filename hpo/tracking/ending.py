"""Ending: tells the trackers, then the command and the webhook, how a search ended."""

import contextlib
import logging
from dataclasses import replace
from types import TracebackType
from typing import Self

from hpo.config.schema import SearchConfig
from hpo.engine.observer import SearchObserver
from hpo.errors import RunInterrupted
from hpo.run import Run
from hpo.run_folder import RunFolder
from hpo.tracking.hooks import check_hooks, tell_the_end, webhook_note
from hpo.tracking.search_end import SearchEnd, State
from hpo.tracking.tracked_search import TrackedSearch, check_trackers, make_trackers


class Ending:
    """A context manager around a search, which tells of its end once the search has begun.

    Args:
        observer: Hears of the search's events.
    """

    def __init__(self, observer: SearchObserver) -> None:
        self._observer = observer
        self._config: SearchConfig | None = None  # None: the search has not begun
        self._run: Run | None = None
        self._tracked: TrackedSearch | None = None
        self._end: SearchEnd | None = None

    def begin(self, config: SearchConfig, folder: RunFolder) -> None:
        """Checks whoever is to be told of the search; from here on its end is told.

        Raises:
            InputError: Somebody cannot be told.
        """
        check_hooks(config.tracking)
        if (said := webhook_note(config.tracking)) is not None:
            self._observer.note(said)
        if names := ", ".join(tracker.name for tracker in make_trackers(config, folder)):
            self._observer.phase(f"looking for {names}")
        check_trackers(config, folder)
        self._config, self._folder = config, folder

    def track(self, run: Run) -> SearchObserver:
        """Begins to feed the trackers; returns the observer that hears of the events for them."""
        self._run = run
        trackers = make_trackers(run.config, run.folder)
        if not trackers:
            return self._observer
        self._tracked = TrackedSearch(self._observer, trackers, run.config, run.folder)
        self._tracked.begin(run.trials)
        return self._tracked

    def finish_tracking(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Sends the trackers what is missing; the lease on the study is given up by now."""
        if self._config is None:
            return
        state, said = _state_of(error)
        run = None if self._run is None else self._run.reload()
        try:
            self._end = None if run is None else SearchEnd.of(run, state, said)
        except Exception:
            logging.getLogger(__name__).debug("the study cannot be read", exc_info=True)
            run = None
        self._end = self._end or SearchEnd.without_study(self._config, self._folder, state, said)
        if self._tracked is not None:
            self._tracked.finish(self._end, run)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._config is not None and self._end is not None:
            state, said = _state_of(error)
            end = replace(self._end, state=state, error=said)
            with contextlib.suppress(KeyboardInterrupt):  # another Ctrl-C waits for nobody
                tell_the_end(self._config.tracking, end, self._observer.note)


def _state_of(error: BaseException | None) -> tuple[State, str | None]:
    """How a search ended, by what it raised, and why in words."""
    if error is None:
        return "done", None
    if isinstance(error, (RunInterrupted, KeyboardInterrupt, SystemExit)):
        return "interrupted", str(error) or "interrupted"
    return "failed", str(error) or type(error).__name__
