"""Tests of the invariants of every search under any faults, on searches drawn at random.

A failure names its seed, and `RANDOM_SEARCHES=17 pytest tests/hpo/test_invariants.py` repeats
that search alone; `RANDOM_SEARCHES=0-9999` runs more searches than usual.
"""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from invariants import same, same_trials, searched
from random_searches import draw_plan


def check(seed: int, folder: Path) -> None:
    """Raises BrokenInvariantError if the search of a seed breaks an invariant."""
    plan = draw_plan(seed, folder)
    search = searched(plan, folder)
    quiet = replace(plan, asks_often=False)
    if plan.asks_often:
        unasked = searched(quiet, folder)
        same_trials(search, unasked, "asking changes no decision")
        states = search.study.metadata.model_state, unasked.study.metadata.model_state
        same(search, states, "asking does not change the model")
    # The study stores the clock only now and then, so a kill may lose ten seconds of it.
    if plan.is_calm and search.num_kills and search.config.limits["wall_clock_hours"] is None:
        unbroken = searched(replace(quiet, killed=0), folder)
        same_trials(search, unbroken, "a resumed search is as an unbroken one")


def seeds(default: range) -> range:
    """The seeds that RANDOM_SEARCHES names, such as 17 or 1000-1999; else the default."""
    first, _, last = os.environ.get("RANDOM_SEARCHES", "").partition("-")
    return range(int(first), int(last or first) + 1) if first else default


def chunks(of: range, size: int) -> list[range]:
    return [of[i : i + size] for i in range(0, len(of), size)]


def name(chunk: range) -> str:
    return f"seeds {chunk[0]}-{chunk[-1]}"


def check_all(chunk: range, folder: Path) -> None:
    for seed in chunk:
        try:
            check(seed, folder)
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
