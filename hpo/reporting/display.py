"""Displays of a search in progress: a live table on a terminal, plain lines elsewhere."""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, Self

from rich.console import Console
from rich.live import Live

from hpo.config.schema import SearchConfig
from hpo.config.search_space import Value
from hpo.engine.observer import Place
from hpo.reporting.snapshot import (
    Snapshot,
    TrialAtWork,
    clock_time,
    epochs_left,
    number_text,
    short_params,
)
from hpo.reporting.study_reader import StudyFacts, StudyReader
from hpo.reporting.view import SearchView
from hpo.study.gate import AWAY
from hpo.study.study import SearchStudy
from hpo.study.trial import TrialStatus

SECONDS_BETWEEN_LINES: Final = 15.0
REFRESHES_A_SECOND: Final = 2  # a drawing takes some milliseconds of the driver
SECONDS_TO_END: Final = 2.0


class Display:
    """A SearchObserver and context manager that tracks a search; subclasses show its state."""

    def __init__(self, config: SearchConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self.config = config
        self.metric = config.study.metric
        self.running: dict[int, TrialAtWork] = {}
        self.paused: dict[int, TrialAtWork] = {}
        self.states: Counter[str] = Counter()
        self.best: tuple[int, float] | None = None
        self.num_slots: int | None = None
        self.text = "starting"
        self.steps: tuple[int, int] | None = None
        self._clock, self._start = clock, clock()
        self._num_epochs, self._first_epoch_at = 0, 0.0
        self._num_epochs_before = 0
        self._ended_epochs: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass

    def phase(self, text: str) -> None:
        self.text, self.steps = text, None

    def step(self, done: int, total: int) -> None:
        self.steps = (done, total)

    def note(self, text: str) -> None:
        pass

    def study_opened(self, study: SearchStudy) -> None:
        pass

    def slots(self, num: int) -> None:
        self.num_slots = num

    def earlier_trials(
        self, states: Mapping[str, int], best: tuple[int, float] | None, num_epochs: int
    ) -> None:
        """Sets states, best trial and epochs of the trials that a resumed search has already."""
        self.states.update({s: n for s, n in states.items() if s != TrialStatus.RUNNING})
        self.best = best
        self._num_epochs_before = num_epochs

    def trial_started(self, number: int, params: Mapping[str, Value], num_epochs: int) -> None:
        if number in self.paused:
            self.running[number] = self.paused.pop(number)
            return
        self.running[number] = TrialAtWork(params, num_epochs)

    def epoch_metrics(self, number: int, row: Mapping[str, Any]) -> None:
        pass

    def epoch(self, number: int, epoch: int, value: float) -> None:
        self.text = "searching"
        self._first_epoch_at = self._first_epoch_at or self._clock()
        self._num_epochs += 1
        trial = self.running[number]
        trial.epoch, trial.latest = epoch, value
        trial.best = value if trial.best is None else self._better(trial.best, value)

    def trains_at(self, number: int, place: Place) -> None:
        self.running[number].place = place

    def trial_paused(self, number: int) -> None:
        trial = self.paused[number] = self.running.pop(number)
        if trial.best is not None and self._is_best(trial.best):
            self.best = (number, trial.best)

    def trial_ended(self, number: int, state: str, reason: str, value: float | None) -> None:
        if state != TrialStatus.INFEASIBLE:
            self._ended_epochs.append(self._known(number).epoch)
        self.running.pop(number, None)
        self.paused.pop(number, None)
        self.states[state] += 1
        if state == TrialStatus.COMPLETE and value is not None and self._is_best(value):
            self.best = (number, value)

    def finalist_trained(self, number: int, seed: int, value: float | None) -> None:
        pass

    def retrain_epoch(self, row: Mapping[str, Any], max_epochs: int) -> None:
        value = f"{self.metric} {row[self.metric]:.4f}"
        head = self.text.split(":")[0]
        self.text = f"{head}: epoch {row['epoch']} of {max_epochs}, {value}"

    def snapshot(self) -> Snapshot:
        """The search as it is now."""
        return Snapshot(
            config=self.config,
            phase=self.phase_text(),
            states=dict(self.states),
            running=dict(self.running),
            num_paused=len(self.paused),
            best=self.best,
            seconds=self._clock() - self._start,
            seconds_left=self.seconds_left(),
            num_slots=self.num_slots,
        )

    def summary(self) -> str:
        """One line: trials by state, the best value, time elapsed and time left."""
        return self.snapshot().summary()

    def seconds_left(self) -> float | None:
        """Estimated seconds until the last trial ends; None: no estimate yet."""
        running = [trial.epoch for trial in list(self.running.values())]
        if self._num_epochs < 2 or not running:
            return None
        seconds_an_epoch = (self._clock() - self._first_epoch_at) / (self._num_epochs - 1)
        num_epochs = self._num_epochs_before + self._num_epochs
        num_ended = self.states.total() - self.states[TrialStatus.INFEASIBLE]
        left = epochs_left(self.config, num_epochs, num_ended, self._ended_epochs, running)
        return None if left is None else left * seconds_an_epoch

    def _known(self, number: int) -> TrialAtWork:
        """The running or paused trial; an empty one if it was paused before this display began."""
        return self.running.get(number) or self.paused.get(number) or TrialAtWork({}, 0)

    def phase_text(self) -> str:
        """The present phase with its progress, such as 'decoding images: 30 of 100'."""
        if self.steps is None:
            return self.text
        return f"{self.text}: {self.steps[0]} of {self.steps[1]}"

    def _is_best(self, value: float) -> bool:
        return self.best is None or self._better(self.best[1], value) != self.best[1]

    def _better(self, a: float, b: float) -> float:
        return self.config.study.objective.best((a, b))


class LiveDisplay(Display):
    """A live view of the search, redrawn twice a second.

    What the search's events do not tell, budget and health, a thread reads from the study.
    """

    def __init__(self, config: SearchConfig, console: Console) -> None:
        super().__init__(config)
        self._console = console
        self._facts: StudyFacts | None = None
        self._ended = threading.Event()
        self._reading: threading.Thread | None = None
        self._live = Live(
            console=console,
            refresh_per_second=REFRESHES_A_SECOND,
            get_renderable=self.render,
            transient=True,
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        if self._reading is not None:
            self._reading.join(SECONDS_TO_END)
        self._live.stop()

    def note(self, text: str) -> None:
        self._console.print(f"note: {text}", markup=False)

    def study_opened(self, study: SearchStudy) -> None:
        reader = StudyReader(study, self.config)
        self._reading = threading.Thread(target=self._read, args=(reader,), daemon=True)
        self._reading.start()

    def trial_ended(self, number: int, state: str, reason: str, value: float | None) -> None:
        super().trial_ended(number, state, reason, value)
        if state == TrialStatus.FAIL:
            self.note(f"trial {number} failed: {reason}")

    def snapshot(self) -> Snapshot:
        """The search as it is now, with what was read from the study a moment ago."""
        snapshot, facts = super().snapshot(), self._facts
        if facts is None:
            return snapshot
        left = [s for s in (snapshot.seconds_left, facts.seconds_left) if s is not None]
        return replace(
            snapshot,
            best=facts.best or snapshot.best,
            seconds_left=min(left, default=None) if self.running else None,
            budget=facts.budget,
            health=facts.health,
        )

    def render(self) -> SearchView:
        return SearchView(self.snapshot())

    def _read(self, reader: StudyReader) -> None:
        while not self._ended.wait(reader.seconds_to_wait):
            with contextlib.suppress(*AWAY):  # the search itself waits for the database
                self._facts = reader.read()


class PlainDisplay(Display):
    """Plain lines for logs and pipes: trials that start and end, and the progress in between."""

    def __init__(self, config: SearchConfig, write: Callable[[str], None]) -> None:
        super().__init__(config)
        self._write = write
        self._last_line_at = 0.0

    def phase(self, text: str) -> None:
        super().phase(text)
        self._line(text)

    def earlier_trials(
        self, states: Mapping[str, int], best: tuple[int, float] | None, num_epochs: int
    ) -> None:
        super().earlier_trials(states, best, num_epochs)
        self._line(f"continuing: {self.summary()}")

    def step(self, done: int, total: int) -> None:
        super().step(done, total)
        self._line_if_due()

    def note(self, text: str) -> None:
        self._line(f"note: {text}")

    def trial_started(self, number: int, params: Mapping[str, Value], num_epochs: int) -> None:
        super().trial_started(number, params, num_epochs)
        how = f"continues after epoch {num_epochs}" if num_epochs else "starts"
        self._line(f"trial {number} {how}: {short_params(params)}")

    def epoch(self, number: int, epoch: int, value: float) -> None:
        super().epoch(number, epoch, value)
        self._line_if_due()

    def trial_ended(self, number: int, state: str, reason: str, value: float | None) -> None:
        epoch = self._known(number).epoch
        super().trial_ended(number, state, reason, value)
        self._line(
            f"trial {number} {state} after epoch {epoch} ({reason}), best {number_text(value)}; "
            f"{self.summary()}"
        )

    def trial_paused(self, number: int) -> None:
        super().trial_paused(number)
        trial = self.paused[number]
        latest = number_text(trial.latest)
        self._line(f"trial {number} is paused after epoch {trial.epoch}: {latest}")

    def finalist_trained(self, number: int, seed: int, value: float | None) -> None:
        super().finalist_trained(number, seed, value)
        self._line(f"trial {number} on seed {seed}: {self.metric} {number_text(value)}")

    def retrain_epoch(self, row: Mapping[str, Any], max_epochs: int) -> None:
        super().retrain_epoch(row, max_epochs)
        self._line(self.text)

    def _line_if_due(self) -> None:
        if self._clock() - self._last_line_at > SECONDS_BETWEEN_LINES:
            epochs = (f"trial {n} epoch {t.epoch}" for n, t in sorted(self.running.items()))
            self._line("; ".join([self.phase_text(), *epochs, self.summary()]))

    def _line(self, text: str) -> None:
        self._last_line_at = self._clock()
        self._write(f"[{clock_time(self._clock() - self._start)}] {text}")
