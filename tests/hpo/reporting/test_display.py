import io
import re
import time
from pathlib import Path

import pytest
from reports import make_study
from rich.console import Console

from hpo.config.loading import load_search_config
from hpo.config.schema import SearchConfig
from hpo.engine.observer import Place
from hpo.reporting import study_reader
from hpo.reporting.display import Display, LiveDisplay, PlainDisplay
from hpo.run_folder import RunFolder

PARAMS = {"model.name": "sg_former_nano", "optimizer.learning_rate": 0.00123456}


@pytest.fixture
def config(search_file: Path) -> SearchConfig:
    return load_search_config(search_file)[0]


class Clock:
    """A clock that stands still until a test sets `now`, in seconds."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def follow(display: Display) -> None:
    """Tells the display of two trials, one of which ends."""
    display.phase("starting workers")
    display.trial_started(0, PARAMS, 0)
    display.trial_started(1, PARAMS, 0)
    for number, epoch, value in ((0, 1, 0.5), (1, 1, 0.25), (0, 2, 0.75), (0, 3, 0.625)):
        display.epoch(number, epoch, value)
    display.trial_ended(0, "COMPLETE", "completed", 0.75)


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_live_table_shows_running_trials_at_any_width(
    config: SearchConfig, width: int
) -> None:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    display = LiveDisplay(config, console)
    follow(display)
    display.epoch(1, 2, 0.125)
    with console.capture() as captured:
        console.print(display.render())
    text = captured.get()
    assert max(len(line) for line in text.splitlines()) <= width
    flat = " ".join(text.split())
    for expected in ("trial", "epoch", "2/4", "0.1250", "0.2500", "1 of 4"):
        assert expected in flat
    assert "sg_former_nano" in text.replace("\n", "").replace(" ", "")


def test_lines_say_what_began_and_ended(config: SearchConfig) -> None:
    lines: list[str] = []
    display = PlainDisplay(config, lines.append)
    follow(display)
    display.note("something")
    text = "\n".join(lines)
    assert "trial 0 starts: name=sg_former_nano learning_rate=0.00123" in text
    assert "trial 0 COMPLETE after epoch 3 (completed), best 0.7500" in text
    assert "1 of 4 trials ended, 1 complete, 0 pruned, 0 failed" in text
    assert "best val_top1 0.7500 (trial 0)" in text
    assert "note: something" in text


def test_what_was_not_trained_is_counted_apart(config: SearchConfig) -> None:
    display = Display(config)
    follow(display)
    for number in (2, 3, 4):
        display.trial_ended(number, "INFEASIBLE", "infeasible: latency_ms 9, not <= 5", None)
    text = display.summary()
    assert text.startswith("1 of 4 trials ended, 1 complete, 0 pruned, 0 failed, 3 infeasible")
    assert "infeasible" not in Display(config).summary()


def test_time_left_follows_the_pace(config: SearchConfig) -> None:
    clock = Clock()
    display = Display(config, clock)
    display.trial_started(0, PARAMS, 0)
    assert display.seconds_left() is None
    for epoch in range(1, 5):
        clock.now += 10
        display.epoch(0, epoch, 0.5)
    display.trial_ended(0, "COMPLETE", "completed", 0.5)
    display.trial_started(1, PARAMS, 0)
    # One running and two waiting trials of four epochs, ten seconds each.
    assert display.seconds_left() == pytest.approx(120)
    assert "about 2:00 left" in display.summary()


def test_a_resumed_search_counts_what_was_done(config: SearchConfig) -> None:
    display = Display(config)
    display.earlier_trials({"COMPLETE": 1, "PRUNED": 2, "RUNNING": 1}, (0, 0.5), 9)
    assert display.summary().startswith(
        "3 of 4 trials ended, 1 complete, 2 pruned, 0 failed, best val_top1 0.5000 (trial 0)"
    )


def test_a_paused_trial_leaves_the_table_and_comes_back(config: SearchConfig) -> None:
    lines: list[str] = []
    display = PlainDisplay(config, lines.append)
    display.trial_started(0, PARAMS, 0)
    display.epoch(0, 1, 0.25)
    display.trial_paused(0)
    assert not display.running
    assert lines[-1].endswith("trial 0 is paused after epoch 1: 0.2500")
    assert display.best == (0, 0.25)
    display.trial_started(0, PARAMS, 1)
    assert (display.running[0].epoch, display.running[0].best) == (1, 0.25)
    display.trial_paused(0)
    display.trial_ended(0, "PRUNED", "paused at epoch 1", 0.25)
    display.trial_ended(7, "PRUNED", "paused at epoch 1", 0.25)  # paused by an earlier search
    assert display.states["PRUNED"] == 2
    assert not display.paused


def test_time_left_follows_a_budget_of_epochs(search_file: Path) -> None:
    config, _ = load_search_config(search_file, ["budget.total_epochs=24"])  # 4 to retrain
    clock = Clock()
    display = Display(config, clock)
    display.earlier_trials({"RUNNING": 1}, None, 6)
    display.trial_started(0, PARAMS, 6)
    for epoch in range(7, 11):
        clock.now += 10
        display.epoch(0, epoch, 0.5)
    assert display.seconds_left() == pytest.approx(100)


def test_a_loss_gets_better_by_falling(search_file: Path) -> None:
    config, _ = load_search_config(search_file, ["study.objectives=[[val_loss, minimize]]"])
    display = Display(config)
    for number, value in enumerate((0.5, 0.25, 0.75)):
        display.trial_started(number, PARAMS, 0)
        display.epoch(number, 1, value)
        display.trial_ended(number, "COMPLETE", "completed", value)
    assert display.best == (1, 0.25)


def test_finalists_are_shown(config: SearchConfig) -> None:
    lines: list[str] = []
    display = PlainDisplay(config, lines.append)
    display.finalist_trained(3, 2, 0.5)
    display.finalist_trained(0, 2, None)
    assert [line.partition("] ")[2] for line in lines] == [
        "trial 3 on seed 2: val_top1 0.5000",
        "trial 0 on seed 2: val_top1 -",
    ]


def test_retraining_is_shown(config: SearchConfig) -> None:
    lines: list[str] = []
    display = PlainDisplay(config, lines.append)
    display.phase("retraining trial 3")
    for epoch in (1, 2):
        display.retrain_epoch({"epoch": epoch, "val_top1": 0.5}, 4)
    assert [line.partition("] ")[2] for line in lines] == [
        "retraining trial 3",
        "retraining trial 3: epoch 1 of 4, val_top1 0.5000",
        "retraining trial 3: epoch 2 of 4, val_top1 0.5000",
    ]


def test_a_live_display_leaves_the_terminal_as_it_was(config: SearchConfig) -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    with LiveDisplay(config, console) as display:
        follow(display)
    file = console.file
    assert isinstance(file, io.StringIO)
    assert file.getvalue().count("\x1b[?25h") == 1  # the cursor is back


def test_slots_and_places_are_shown(config: SearchConfig) -> None:
    console = Console(file=io.StringIO(), width=100, color_system=None)
    display = LiveDisplay(config, console)
    display.slots(3)
    follow(display)
    display.trains_at(1, Place("alpha", "2", 0.5))
    with console.capture() as captured:
        console.print(display.render())
    text = captured.get()
    assert "1 of 3 in use" in text
    assert re.search(r"1 +GPU 2 +50% +1/4", text)


def test_budget_and_health_are_read_from_the_study(
    config: SearchConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_reader, "LEAST_SECONDS", 0.01)
    config = SearchConfig.model_validate(config.model_dump() | {"budget": {"total_epochs": 100}})
    study = make_study(config, RunFolder(tmp_path), ["COMPLETE", "FAIL"])
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    with LiveDisplay(config, console) as display:
        display.study_opened(study)
        while not display.snapshot().budget:
            time.sleep(0.01)
        snapshot = display.snapshot()
    assert snapshot.budget == ("96 of 100 epochs",)
    assert "1 of 2 trials have broken" in snapshot.health[0].text
