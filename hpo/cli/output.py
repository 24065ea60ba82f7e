"""Prints rows, JSON, notes and errors for the commands."""

import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

WIDTH_OF_LOGS: Final = 160
MIN_NAME_WIDTH: Final = 16
SECONDS_BETWEEN_LINES: Final = 10.0


def escape_what_the_output_cannot_hold() -> None:
    """Makes stdout and stderr escape characters that their encoding lacks.

    Otherwise a class named 'café' on an ASCII terminal, or a file name that is not valid UTF-8,
    would end a command with UnicodeEncodeError.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a test's stand-in may not have it
            stream.reconfigure(errors="backslashreplace")


def print_rows(rows: Mapping[str, str]) -> None:
    """Prints names and values in two columns; a terminal wraps long values in their column."""
    console = Console(markup=False, highlight=False)
    width = max(MIN_NAME_WIDTH, *map(len, rows))
    if not console.is_terminal:
        sys.stdout.writelines(f"{name:<{width}}  {value}\n" for name, value in rows.items())
        return
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, min_width=width)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints columns under their names; all but the first are aligned to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        cells = [f"{row[0]:<{widths[0]}}"]
        cells += [f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)]
        sys.stdout.write("  ".join(cells).rstrip() + "\n")


def print_json(values: Any, indent: int | None = 2) -> None:
    """Prints one JSON document; NaN and infinities, which JSON lacks, become null."""
    sys.stdout.write(json.dumps(_finite(values), indent=indent, allow_nan=False) + "\n")


def _finite(values: Any) -> Any:
    """The same values with None in place of floats that are not finite."""
    if isinstance(values, Mapping):
        return {key: _finite(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [_finite(value) for value in values]
    if isinstance(values, float) and not math.isfinite(values):
        return None
    return values


def print_note(text: str) -> None:
    """Prints a note on standard error."""
    stderr_console().print(f"note: {text}", markup=False, soft_wrap=True)


def progress_of_listing() -> Callable[[int], None]:
    """Prints how many files a scan has found, once a second from its second second on."""
    next_time = time.monotonic() + 1

    def tell(num_files: int) -> None:
        nonlocal next_time
        if time.monotonic() >= next_time:
            next_time = time.monotonic() + 1
            print(f"listing images: {num_files:,} files so far", file=sys.stderr, flush=True)

    return tell


@contextlib.contextmanager
def progress_of(what: str) -> Iterator[Callable[[int, int], None]]:
    """Shows how much is done, of how much, if that takes longer than a second.

    A terminal gets a bar that vanishes at the end, a log a line every ten seconds.

    Args:
        what: What is being done, such as 'checking images'.
    """
    next_time, bar = None, _bar()
    task = bar.add_task(what)
    seconds = 0.1 if bar.console.is_terminal else SECONDS_BETWEEN_LINES

    def tell(done: int, total: int) -> None:
        nonlocal next_time
        now = time.monotonic()
        next_time = next_time or now + 1
        if now < next_time:
            return
        next_time = now + seconds
        if bar.console.is_terminal:
            bar.update(task, completed=done, total=total)
            bar.start()  # does nothing if it has been started
        else:
            print(f"{what}: {done:,} of {total:,}", file=sys.stderr, flush=True)

    try:
        yield tell
    finally:
        if bar.live.is_started:
            bar.stop()


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), TaskProgressColumn())
    console = stderr_console()
    return Progress(*columns, TimeRemainingColumn(), console=console, transient=True)


def stderr_console() -> Console:
    """A console on standard error; its lines have 160 characters where there is no terminal."""
    console = Console(stderr=True, markup=False, highlight=False)
    if not console.is_terminal:
        console.width = WIDTH_OF_LOGS
    return console


def fail(message: str, code: int) -> None:
    """Prints an error and ends the process with an exit code."""
    sys.stdout.flush()
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)
