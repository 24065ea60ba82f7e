"""What holds of every search, whatever befalls it: checked over searches drawn at random.

A failure names its seed, and `RANDOM_SEARCHES=17 pytest tests/hpo/test_invariants.py` repeats
that one alone; `RANDOM_SEARCHES=0-9999` takes more of them than usual.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from invariants import BrokenInvariantError, same, same_trials, searched
from random_driver import RandomSearch
from random_searches import draw_plan

from hpo.config.schema import PAUSING


def check(seed: int, folder: Path) -> None:
    """Raises BrokenInvariantError where the search of a seed breaks one."""
    plan = draw_plan(seed, folder)
    search = searched(plan, folder)
    quiet = replace(plan, asks_often=False)
    if plan.asks_often:
        unasked = searched(quiet, folder)
        same_trials(search, unasked, "asking changes no decision")
        states = search.study.metadata.model_state, unasked.study.metadata.model_state
        same(search, states, "asking does not change the model")
    # What the clock was at is noted now and then, so a kill may lose ten seconds of it.
    if plan.is_calm and search.num_kills and search.config.limits["wall_clock_hours"] is None:
        unbroken = searched(replace(quiet, killed=0), folder)
        same_trials(search, unbroken, "a resumed search is as an unbroken one")


class KnownFault(NamedTuple):
    """Why some searches break invariants until it is mended.

    Attributes:
        fault: Its number in the review of the core, and what it is.
        invariants: That it breaks; none: any.
        concerns: Whether a search may have met it.
    """

    fault: str
    invariants: tuple[str, ...]
    concerns: Callable[[RandomSearch], bool]


KNOWN_FAULTS: Final = (
    KnownFault(
        "1.2: a raised budget is thrown away where a kill came while the last trial ran",
        ("what is left is used", "what is left brings paused trials to their end"),
        lambda search: search.was_raised_closing,
    ),
    KnownFault(
        "1.6: epochs of carried-over trials are counted when these are resumed, then forgotten",
        (
            "epochs within the budget", "gpu_hours within the budget", "what is left is used",
            "what is left brings paused trials to their end",
            "a resumed search is as an unbroken one",
        ),
        lambda search: search.plan.num_carried > 0,
    ),
    KnownFault(
        "1.7 and 1.8: polls and questions refit the model of curves, and keep what they fitted",
        ("asking changes no decision", "asking does not change the model"),
        lambda search: search.config.scheduler.name == "freeze_thaw",
    ),
    KnownFault(
        "1.9: limits that are reached without a trial ending are never noted",
        ("that it is over is noted",),
        lambda search: search.config.scheduler.name not in PAUSING,
    ),
    KnownFault(
        "1.14: a trial that another program enqueues takes a number that ours takes, too",
        (),
        lambda search: search.num_enqueued > 0,
    ),
    KnownFault(
        "not in the review: stopped at a rung after a kill that left its checkpoint an epoch "
        "ahead, a trial is said to have been stopped at a rung where none is",
        ("where a trial was stopped is true",),
        lambda search: search.num_kills > 0 and search.config.scheduler.name not in PAUSING,
    ),
    KnownFault(
        "not in the review: killed when its last trial is told as COMPLETE and before "
        "limits_reached is, a search chooses another last trial when it is resumed",
        ("a resumed search is as an unbroken one",),
        lambda search: search.was_killed_closing,
    ),
)  # fmt: skip


def is_known(error: BrokenInvariantError) -> bool:
    search = error.search
    return search is not None and any(
        fault.concerns(search) and (not fault.invariants or error.invariant in fault.invariants)
        for fault in KNOWN_FAULTS
    )


def check_but_for_known_faults(seed: int, folder: Path) -> None:
    try:
        check(seed, folder)
    except BrokenInvariantError as error:
        if not is_known(error):
            raise


def seeds(default: range) -> range:
    """Those of RANDOM_SEARCHES, such as 17 or 1000-1999; else the default."""
    first, _, last = os.environ.get("RANDOM_SEARCHES", "").partition("-")
    return range(int(first), int(last or first) + 1) if first else default


def chunks(of: range, size: int) -> list[range]:
    return [of[i : i + size] for i in range(0, len(of), size)]


def name(chunk: range) -> str:
    return f"seeds {chunk[0]}-{chunk[-1]}"


def check_all(chunk: range, folder: Path) -> None:
    for seed in chunk:
        try:
            check_but_for_known_faults(seed, folder)
        except Exception as error:
            error.add_note(f"seed {seed}; RANDOM_SEARCHES={seed} pytest {__file__} repeats it")
            raise


@pytest.mark.filterwarnings("ignore::UserWarning")  # samplers that ignore constraints say so
@pytest.mark.parametrize("chunk", chunks(seeds(range(500)), 25), ids=name)
def test_whatever_befalls_a_search_its_invariants_hold(chunk: range, tmp_path: Path) -> None:
    check_all(chunk, tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("chunk", chunks(seeds(range(1000, 5000)), 100), ids=name)
def test_whatever_befalls_thousands_of_searches_their_invariants_hold(
    chunk: range, tmp_path: Path
) -> None:
    check_all(chunk, tmp_path)
