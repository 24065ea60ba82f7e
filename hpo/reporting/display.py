"""Displays of a search in progress: a live table on a terminal, plain lines elsewhere."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hpo.config.schema import SearchConfig
from hpo.config.search_space import Value
from hpo.study.trial import TrialStatus

SECONDS_BETWEEN_LINES: Final = 15.0


@dataclass
class RunningTrial:
    """Params, last epoch, and latest and best metric of a running or paused trial."""

    params: Mapping[str, Value]
    epoch: int
    latest: float | None = None
    best: float | None = None


class Display:
    """A SearchObserver and context manager that tracks a search; subclasses show its state."""

    def __init__(self, config: SearchConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self.config = config
        self.metric = config.study.metric
        self.running: dict[int, RunningTrial] = {}
        self.paused: dict[int, RunningTrial] = {}
        self.states: Counter[str] = Counter()
        self.best: tuple[int, float] | None = None
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
        self.running[number] = RunningTrial(params, num_epochs)

    def epoch_metrics(self, number: int, row: Mapping[str, Any]) -> None:
        pass

    def epoch(self, number: int, epoch: int, value: float) -> None:
        self.text = "searching"
        self._first_epoch_at = self._first_epoch_at or self._clock()
        self._num_epochs += 1
        trial = self.running[number]
        trial.epoch, trial.latest = epoch, value
        trial.best = value if trial.best is None else self._better(trial.best, value)

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

    def summary(self) -> str:
        """One line: trials by state, the best value, time elapsed and time left."""
        total = self.config.study.num_trials
        names = {
            TrialStatus.COMPLETE: "complete",
            TrialStatus.PRUNED: "pruned",
            TrialStatus.FAIL: "failed",
        }
        counts = [f"{self.states[state]} {name}" for state, name in names.items()]
        num_infeasible = self.states[TrialStatus.INFEASIBLE]
        if num_infeasible:
            counts.append(f"{num_infeasible} infeasible")
        num_ended = self.states.total() - num_infeasible
        parts = [f"{num_ended} of {total} trials ended", *counts]
        if self.best is not None:
            parts.append(f"best {self.metric} {self.best[1]:.4f} (trial {self.best[0]})")
        left = self.seconds_left()
        times = f"{clock_time(self._clock() - self._start)} elapsed"
        return ", ".join([*parts, times, *([f"about {clock_time(left)} left"] if left else [])])

    def seconds_left(self) -> float | None:
        """Estimated seconds until the last trial ends; None: no estimate yet.

        The estimate uses the epochs left in the budget, or without a limit on epochs the mean
        epochs of ended trials.
        """
        if self._num_epochs < 2:
            return None
        seconds_an_epoch = (self._clock() - self._first_epoch_at) / (self._num_epochs - 1)
        limit = self.config.limits["total_epochs"]
        if limit is not None:
            is_given = self.config.budget.total_epochs is not None
            after = self.config.num_fresh_trainings * self.config.fresh_epochs if is_given else 0
            epochs_left = limit - after - self._num_epochs_before - self._num_epochs
            return max(0, epochs_left) * seconds_an_epoch if self.running else None
        if not self._ended_epochs:
            return None
        mean_epochs = sum(self._ended_epochs) / len(self._ended_epochs)
        num_ended = self.states.total() - self.states[TrialStatus.INFEASIBLE]
        waiting = self.config.study.num_trials - num_ended - len(self.running)
        epochs = max(0, waiting) * mean_epochs + sum(
            max(1.0, mean_epochs - trial.epoch) for trial in list(self.running.values())
        )
        return epochs * seconds_an_epoch if self.running else None

    def _known(self, number: int) -> RunningTrial:
        """The running or paused trial; an empty one if it was paused before this display began."""
        return self.running.get(number) or self.paused.get(number) or RunningTrial({}, 0)

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
    """A live table of the running trials, redrawn four times a second."""

    def __init__(self, config: SearchConfig, console: Console) -> None:
        super().__init__(config)
        self._console = console
        self._live = Live(
            console=console, refresh_per_second=4, get_renderable=self.render, transient=True
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.stop()

    def note(self, text: str) -> None:
        self._console.print(f"note: {text}", markup=False)

    def trial_ended(self, number: int, state: str, reason: str, value: float | None) -> None:
        super().trial_ended(number, state, reason, value)
        if state == TrialStatus.FAIL:
            self.note(f"trial {number} failed: {reason}")

    def render(self) -> RenderableType:
        lines: list[RenderableType] = [Text(self.summary()), Text(f"{self.phase_text()} ...")]
        running = sorted(self.running.items())
        if not running:
            return Group(*lines)
        table = Table(expand=False, box=None, padding=(0, 2, 0, 0), header_style="bold")
        for name in ("trial", "epoch", "latest", "best"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("parameters", overflow="fold")
        for number, trial in running:
            table.add_row(
                str(number),
                f"{trial.epoch}/{self.config.train.max_epochs}",
                _number(trial.latest),
                _number(trial.best),
                Text(short_params(trial.params)),
            )
        return Group(lines[0], table, lines[1])


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
            f"trial {number} {state} after epoch {epoch} ({reason}), best {_number(value)}; "
            f"{self.summary()}"
        )

    def trial_paused(self, number: int) -> None:
        super().trial_paused(number)
        trial = self.paused[number]
        self._line(f"trial {number} is paused after epoch {trial.epoch}: {_number(trial.latest)}")

    def finalist_trained(self, number: int, seed: int, value: float | None) -> None:
        super().finalist_trained(number, seed, value)
        self._line(f"trial {number} on seed {seed}: {self.metric} {_number(value)}")

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


def short_params(params: Mapping[str, Value]) -> str:
    """Params by the last part of their paths, as 'name=sg_former_b0 learning_rate=0.0005'."""
    return " ".join(
        f"{path.rpartition('.')[2]}={value:.3g}"
        if isinstance(value, float)
        else f"{path.rpartition('.')[2]}={value}"
        for path, value in params.items()
    )


def clock_time(seconds: float) -> str:
    """Seconds as text: '1:05' (minutes), or '2:01:05' (hours) from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
