"""Runs a program as on a machine whose clock is ahead: `clock_ahead.py PROGRAM ARGUMENTS`.

Clocks of namespaces cannot differ, so the study's lease is given another clock. It also watches a
former driver for seconds instead of a minute.
"""

import functools
import runpy
import sys
import time
from typing import Any

from hpo import search_steps
from hpo.study import driver, lease

SECONDS_AHEAD = 7200.0
WATCH = 5.0


class ClockAhead:
    """The module `time` with another time of day."""

    def time(self) -> float:
        return time.time() + SECONDS_AHEAD

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


if __name__ == "__main__":
    driver.time = lease.time = ClockAhead()  # type: ignore[attr-defined]
    times = lease.LeaseTimes(dead_after=2 * WATCH, least_watch=WATCH)
    search_steps.leased = functools.partial(lease.leased, times=times)  # type: ignore[attr-defined]
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
