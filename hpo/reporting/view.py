"""SearchView: a Snapshot as facts and a table, for a terminal of any width."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from textwrap import shorten
from typing import Final

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from hpo.engine.observer import Place
from hpo.reporting.health import Grade, HealthCard
from hpo.reporting.snapshot import Snapshot, TrialAtWork, number_text, short_params

GAP: Final = 2  # columns between two columns
NAMES_WIDTH: Final = 8
LEAST_FOR_PARAMS: Final = 32  # columns; where there are fewer, params get lines of their own
LEAST_ROWS: Final = 3
MOST_HEALTH_LINES: Final = 3
# Columns, in the order in which they are left out where a terminal is narrow.
DISPENSABLE: Final = ("on", "GPU", "latest", "best")
STYLES: Final = {Grade.FAIL: "bold red", Grade.WARN: "bold yellow", Grade.PASS: "bold green"}
IN_ASCII: Final = (("\u00b1", "+/-"), ("\u2026", "..."))

Columns = dict[str, list[str]]


class SearchView:
    """A search as a terminal shows it: facts, and a table of the trials that train.

    Where a terminal is narrow, columns are left out and params get lines of their own; where it is
    low, trials are left out. A terminal without Unicode gets ASCII.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        is_ascii = options.ascii_only or options.legacy_windows
        rows = _facts(self._snapshot, options.max_width)
        facts = Table.grid(padding=(0, GAP, 0, 0))
        facts.add_column(no_wrap=True, min_width=NAMES_WIDTH - GAP, style="bold")
        facts.add_column(overflow="fold")
        for name, text in rows:
            facts.add_row(name, _in_ascii(text) if is_ascii else text)
        lines = console.render_lines(facts, options.reset_height(), pad=False)
        if self._snapshot.running:
            room = options.max_height - len(lines) - 1
            lines += self._table(console, options.reset_height(), room, is_ascii=is_ascii)
        for line in lines:
            yield from line
            yield Segment.line()

    def _table(
        self, console: Console, options: ConsoleOptions, room: int, *, is_ascii: bool
    ) -> list[list[Segment]]:
        """The lines of the trials, as many as there is room for."""
        running = sorted(self._snapshot.running.items())
        table = _Table(self._snapshot.config.train.max_epochs, options.max_width, is_ascii)
        lines = console.render_lines(table.of(running), options, pad=False)
        if len(lines) <= room:
            return lines
        few = max(LEAST_ROWS, room - 2)
        shown, more = table.of(running[:few], with_params=False), len(running) - few
        lines = console.render_lines(shown, options, pad=False)
        return [*lines, [Segment(f"and {more} more")]] if more > 0 else lines


def _facts(snapshot: Snapshot, width: int) -> Iterator[tuple[str, Text]]:
    total, running = snapshot.config.study.num_trials, snapshot.running
    paused = f"; {snapshot.num_paused} paused" if snapshot.num_paused else ""
    ended = f"{snapshot.num_ended} of {total} ended: {snapshot.states_text()}{paused}"
    yield "trials", Text(ended)
    yield "best", Text(snapshot.best_text())
    of_slots = "" if snapshot.num_slots is None else f" of {snapshot.num_slots}"
    yield "slots", Text(f"{len(running)}{of_slots} in use")
    yield "time", Text(snapshot.time_text() + _end(snapshot.seconds_left))
    if snapshot.budget:
        yield "budget", Text(f"{', '.join(snapshot.budget)} left")
    if gpus := _gpus([trial.place for trial in list(running.values())]):
        yield "GPU", Text(gpus)
    if snapshot.health:
        yield "health", _health(snapshot.health, width)
    yield "now", Text(f"{snapshot.phase} ...")


def _end(seconds_left: float | None) -> str:
    """When the trials end, by the user's own clock."""
    if not seconds_left:
        return ""
    now = datetime.now()
    end = now + timedelta(seconds=seconds_left)
    return f", until {end:%H:%M}" if end.date() == now.date() else f", until {end:%a %d %b %H:%M}"


def _gpus(places: Sequence[Place]) -> str:
    """How busy the GPUs are on which trials train; empty where none is known."""
    known: dict[tuple[str | None, str | None], list[float]] = {}
    for place in places:
        if place.busy is not None:
            known.setdefault((place.hostname, place.gpu), []).append(place.busy)
    busy = {gpu: statistics.fmean(shares) for gpu, shares in known.items()}
    if not busy:
        return ""
    if len(busy) == 1:
        return f"{next(iter(busy.values())):.0%} busy"
    least = min(busy, key=lambda gpu: busy[gpu])
    text = f"{statistics.fmean(busy.values()):.0%} busy, mean of {len(busy)}"
    where = _where(Place(*least), with_host=True)
    return f"{text}; least {busy[least]:.0%} ({where})"


def _where(place: Place, *, with_host: bool) -> str:
    host = (place.hostname or "").partition(".")[0] if with_host else ""
    gpu = "" if place.gpu is None else f"GPU {place.gpu}"
    return f"{host} {gpu}".strip()


def _health(cards: Sequence[HealthCard], width: int) -> Text:
    """The worst outcome, cut between words, and how many others are none of PASS."""
    worst = cards[0]
    if worst.grade == Grade.PASS:
        passed = f"{len(cards)} checks passed" if len(cards) > 1 else f"{worst.name} passed"
        return Text(passed)
    others = sum(card.grade != Grade.PASS for card in cards) - 1
    more = f" (and {others} more)" if others else ""
    most = MOST_HEALTH_LINES * (width - NAMES_WIDTH - GAP) - len(more) - len(worst.grade)
    text = shorten(f"{worst.name}: {worst.text}", max(most, width), placeholder=" ...")
    return Text.assemble((worst.grade, STYLES[worst.grade]), f" {text}{more}")


@dataclass(frozen=True)
class _Table:
    """A table of trials.

    Attributes:
        length: The epochs of a training.
        width: The columns of the terminal.
        is_ascii: Whether the terminal has no Unicode.
    """

    length: int
    width: int
    is_ascii: bool

    def of(
        self, running: Sequence[tuple[int, TrialAtWork]], *, with_params: bool = True
    ) -> RenderableType:
        """The trials, whose params have a column or, where that is narrow, lines of their own."""
        columns = _columns(running, self.length)
        for name in DISPENSABLE:
            if _width(columns) > self.width:
                columns.pop(name, None)
        params = [Text(short_params(trial.params)) for _, trial in running]
        params = [_in_ascii(text) for text in params] if self.is_ascii else params
        has_room = _width(columns) + LEAST_FOR_PARAMS <= self.width
        table = Table(expand=False, box=None, padding=(0, GAP, 0, 0), header_style="bold")
        for name in columns:
            table.add_column(name, justify="right", no_wrap=True)
        if has_room and with_params:
            table.add_column("parameters", overflow="fold")
        beside = [params] if has_room and with_params else []
        for cells in zip(*columns.values(), *beside, strict=True):
            table.add_row(*cells)
        if has_room or not with_params:
            return table
        below = Table.grid(padding=(0, GAP, 0, 0))
        below.add_column(justify="right", no_wrap=True)
        below.add_column(overflow="fold")
        for number, text in zip(columns["trial"], params, strict=True):
            below.add_row(number, text)
        return Group(table, below)


def _columns(running: Sequence[tuple[int, TrialAtWork]], length: int) -> Columns:
    """The cells by column; where all trials train on one node, it is not named."""
    trials = [trial for _, trial in running]
    with_host = len({trial.place.hostname for trial in trials} - {None}) > 1
    columns = {
        "trial": [str(number) for number, _ in running],
        "on": [_where(trial.place, with_host=with_host) for trial in trials],
        "GPU": ["" if t.place.busy is None else f"{t.place.busy:.0%}" for t in trials],
        "epoch": [f"{trial.epoch}/{length}" for trial in trials],
        "latest": [number_text(trial.latest) for trial in trials],
        "best": [number_text(trial.best) for trial in trials],
    }
    return {name: cells for name, cells in columns.items() if any(cells)}


def _width(columns: Mapping[str, Sequence[str]]) -> int:
    return sum(max(map(len, (name, *cells))) + GAP for name, cells in columns.items())


def _in_ascii(text: Text) -> Text:
    """The text with its one style, in ASCII."""
    plain = text.plain
    for character, replacement in IN_ASCII:
        plain = plain.replace(character, replacement)
    spans = text.spans
    return Text(plain.encode("ascii", "backslashreplace").decode(), spans=spans)
