"""Tests of what a terminal shows of a search: any width, any height, no Unicode, no colours."""

import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from hpo.config.loading import load_search_config
from hpo.engine.observer import Place
from hpo.reporting.health import Grade, HealthCard
from hpo.reporting.snapshot import Snapshot, TrialAtWork
from hpo.reporting.view import SearchView

PARAMS = {"model.name": "sg_former_nano", "optimizer.learning_rate": 0.00123456}
FOUND = "the best 5 trials lie within 0.0033, and 300 val images make \u00b1 0.0121"
WARNING = HealthCard("val images", Grade.WARN, FOUND, "more val images")
PASSED = HealthCard("failures", Grade.PASS, "no trial has broken")


@pytest.fixture
def snapshot(search_file: Path) -> Snapshot:
    """A search with two trials that train on one node without a GPU."""
    trials = {
        n: TrialAtWork(PARAMS, 3, 0.97111, 0.98, Place("alpha" if n == 3 else None))
        for n in (3, 12)
    }
    return Snapshot(
        config=load_search_config(search_file)[0],
        phase="searching",
        states={"COMPLETE": 1, "PRUNED": 2},
        running=trials,
        num_paused=4,
        best=(4, 0.98834),
        seconds=65.0,
        seconds_left=125.0,
        num_slots=2,
        budget=("39 of 100 epochs", "1.6 of 2 GPU-hours"),
        health=(WARNING, PASSED),
    )


def on_gpus(snapshot: Snapshot, *places: Place) -> Snapshot:
    """The snapshot with a trial at each place."""
    trials = {n: TrialAtWork(PARAMS, 3, 0.5, 0.5, place) for n, place in enumerate(places)}
    return replace(snapshot, running=trials)


def shown(snapshot: Snapshot, width: int, height: int = 60, **options: Any) -> str:
    console = Console(file=io.StringIO(), width=width, height=height, **options)
    with console.capture() as captured:
        console.print(SearchView(snapshot))
    return captured.get()


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_everything_is_shown_at_any_width_and_no_number_is_cut(
    snapshot: Snapshot, width: int
) -> None:
    text = shown(snapshot, width)
    assert max(map(len, text.splitlines())) <= width
    words = text.split()
    for whole in ("0.9711", "0.9800", "0.9883", "3/4", "1:05", "2:05", "0.0033,", "12"):
        assert whole in words
    assert "learning_rate=0.00123" in words
    flat = " ".join(words)
    assert "3 of 4 ended: 1 complete, 2 pruned, 0 failed; 4 paused" in flat
    assert "2 of 2 in use" in flat
    assert "39 of 100 epochs, 1.6 of 2 GPU-hours left" in flat
    assert re.search(r"1:05 elapsed, about 2:05 left, until .*\d\d:\d\d", flat)
    assert "WARN val images: the best 5 trials lie" in flat


@pytest.mark.parametrize("width", [20, 24, 32])
def test_the_narrowest_terminals_lose_columns_and_no_digits(
    snapshot: Snapshot, width: int
) -> None:
    text = shown(snapshot, width)
    assert max(map(len, text.splitlines())) <= width
    assert "3/4" in text.split()
    assert "\u2026" not in text
    assert ("latest" in text) == (width == 32)


def test_params_have_a_column_only_where_they_have_room(snapshot: Snapshot) -> None:
    assert "parameters" in shown(snapshot, 80)
    assert "parameters" not in shown(snapshot, 60)


def test_a_low_terminal_leaves_trials_out_and_says_so(snapshot: Snapshot) -> None:
    many = on_gpus(snapshot, *[Place("alpha")] * 40)
    text = shown(many, 80, height=24)
    assert len(text.splitlines()) <= 24
    num = len(re.findall(r"^ +\d+ +3/4", text, re.MULTILINE))
    assert num > 8
    assert text.splitlines()[-1] == f"and {40 - num} more"
    assert "more" not in shown(on_gpus(snapshot, *[Place("alpha")] * 12), 80, height=24)


def test_nodes_and_gpus_are_named_where_there_are_several(snapshot: Snapshot) -> None:
    places = Place("alpha.cluster", "0", 0.9), Place("beta.cluster", "1", 0.4)
    text = shown(on_gpus(snapshot, *places), 120)
    assert re.search(r"0 +alpha GPU 0 +90% +3/4", text)
    assert "65% busy, mean of 2; least 40% (beta GPU 1)" in text


def test_trials_on_one_gpu_count_as_one(snapshot: Snapshot) -> None:
    text = shown(on_gpus(snapshot, Place("alpha", "0", 0.75), Place("alpha", "0", 0.25)), 120)
    assert re.search(r"GPU +50% busy\s*$", text, re.MULTILINE)


def test_no_gpu_and_no_node_are_told_where_they_say_nothing(snapshot: Snapshot) -> None:
    text = shown(snapshot, 120)
    assert "alpha" not in text
    assert "busy" not in text


def test_passed_checks_are_counted(snapshot: Snapshot) -> None:
    text = shown(replace(snapshot, health=(PASSED, PASSED)), 80)
    assert "2 checks passed" in text


@pytest.mark.parametrize("options", [{"encoding": "cp1252"}, {"legacy_windows": True}])
def test_a_terminal_without_unicode_gets_ascii(
    snapshot: Snapshot, options: dict[str, Any]
) -> None:
    params = {"model.name": "caf\u00e9"}
    running = {0: TrialAtWork(params, 1, 0.5, 0.5)}
    out = io.TextIOWrapper(io.BytesIO(), encoding=options.pop("encoding", "utf-8"))
    console = Console(file=out, width=80, force_terminal=True, color_system=None, **options)
    console.print(SearchView(replace(snapshot, running=running)))
    out.flush()
    text = out.buffer.getvalue().decode("ascii")  # type: ignore[attr-defined]
    assert "300 val images make +/- 0.0121" in " ".join(text.split())
    assert "caf\\xe9" in text


def test_without_colours_the_words_say_it(snapshot: Snapshot) -> None:
    options = {"force_terminal": True, "color_system": "truecolor"}
    text = shown(snapshot, 80, no_color=True, **options)
    assert not re.search(r"\x1b\[[\d;]*3\d", text)
    assert "WARN" in text
    assert re.search(r"\x1b\[[\d;]*3\d", shown(snapshot, 80, no_color=False, **options))
