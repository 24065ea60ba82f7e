"""Trials in words."""

from pathlib import Path
from typing import Any

import pytest

from hpo.config.loading import load_search_config
from hpo.config.schema import SearchConfig
from hpo.dashboard.words import attributes_of, ordinal, shown_state, status_of, trial_note
from hpo.study.trial import TrialStatus, TrialSummary

CURVE = {1: 0.5, 2: 0.75}
PAUSE = {"facts_so_far": {"epoch": 2, "facts": {"best_epoch": 2}}}
FINDING = {"tag": "overfits", "evidence": "loss rose", "remedy": "more data (mixup_rate)"}


@pytest.fixture
def config(search_file: Path) -> SearchConfig:
    return load_search_config(search_file, ["scheduler={name: freeze_thaw}"])[0]


def trial(state: TrialStatus, curve: dict[int, float] | None = None, **facts: Any) -> TrialSummary:
    known = CURVE if curve is None else curve
    return TrialSummary(7, state, None, {"model.drop_rate": 0.1}, known, facts)


@pytest.mark.parametrize(
    ("state", "facts", "words"),
    [
        ("RUNNING", {}, "running, epoch 2 of 4"),
        ("RUNNING", PAUSE, "paused at epoch 2, third in line"),
        ("COMPLETE", {"end_reason": "completed"}, "complete, 2 epochs"),
        ("COMPLETE", {"end_reason": "early_stopped"}, "complete, stopped itself at epoch 2"),
        ("PRUNED", {"end_reason": "diverged"}, "diverged in epoch 2"),
        (
            "PRUNED",
            {"end_reason": "stopped at rung 2", "standing": [11, 14]},
            "stopped at rung 2: 11th of 14",
        ),
        ("PRUNED", {"end_reason": "stopped at the budget's end"}, "stopped at the budget's end"),
        (
            "PRUNED",
            {"end_reason": "paused at epoch 2"},
            "paused at epoch 2 when the search ended",
        ),
        ("FAIL", {"end_reason": "OSError: no [x]"}, "failed: OSError: no [x]"),
    ],
)
def test_a_trials_status_is_told_in_words(
    config: SearchConfig, state: str, facts: dict[str, Any], words: str
) -> None:
    one = trial(TrialStatus(state), **facts)
    assert status_of(one, config, [3, 5, 7]) == words
    assert attributes_of(one, config, [3, 5, 7])["status"] == words


@pytest.mark.parametrize(
    ("curve", "scheduler", "state"),
    [
        (CURVE, "freeze_thaw", "Paused"),
        ({**CURVE, 3: 0.5}, "freeze_thaw", "Running"),  # resumed
        (CURVE, "asha", "Running"),  # which pauses nobody
    ],
)
def test_a_paused_trial_is_called_paused_while_it_is(
    search_file: Path, curve: dict[int, float], scheduler: str, state: str
) -> None:
    config, _ = load_search_config(search_file, [f"scheduler.name={scheduler}"])
    assert shown_state(trial(TrialStatus.RUNNING, curve, **PAUSE), config) == state


def test_a_paused_trial_that_is_not_in_line_has_no_place(config: SearchConfig) -> None:
    one = trial(TrialStatus.RUNNING, **PAUSE)
    assert status_of(one, config, []) == "paused at epoch 2"


@pytest.mark.parametrize(
    ("number", "text"),
    [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (13, "13th"), (22, "22nd"),
     (112, "112th"), (101, "101st")],
)  # fmt: skip
def test_ordinals(number: int, text: str) -> None:
    assert ordinal(number, in_letters=False) == text


def test_attributes_are_words_and_numbers_and_no_json(config: SearchConfig) -> None:
    facts = {
        "config": config.train.model_dump(mode="json"), "end_reason": "completed",
        "best_value": 2 / 3, "best_epoch": 2, "num_parameters": 1234, "seconds": 10.26,
        "peak_memory_bytes": 2**30, "diagnosis": [FINDING], "checkpoint": "/there",
    }  # fmt: skip
    assert attributes_of(trial(TrialStatus.COMPLETE, **facts), config, []) == {
        "status": "complete, 2 epochs", "best val_top1": 0.666667, "best epoch": 2, "epochs": 2,
        "parameters": 1234, "seconds": 10.3, "memory, GiB": 1.0, "diagnosis": "overfits",
    }  # fmt: skip


def test_the_note_has_the_diagnosis_with_its_remedy(config: SearchConfig) -> None:
    facts = {"end_reason": "completed", "best_value": 0.75, "best_epoch": 2}
    note = trial_note(trial(TrialStatus.COMPLETE, **facts, diagnosis=[FINDING]), config, [])
    assert note.startswith("**Complete, 2 epochs**\n\nBest val_top1: 0.7500, at epoch 2.")
    assert "- **Overfits**: loss rose. Try: more data (mixup\\_rate)." in note
    sound = trial_note(trial(TrialStatus.COMPLETE, **facts, diagnosis=[]), config, [])
    assert "no fault found" in sound


def test_a_failure_is_told_with_its_traceback_and_as_it_is(config: SearchConfig) -> None:
    error = {"type": "OSError", "message": "<b>x</b>", "traceback": "line 1\nOSError: <b>x</b>"}
    facts = {"end_reason": "OSError: <b>x</b> [a](b)", "error": error}
    note = trial_note(trial(TrialStatus.FAIL, {}, **facts), config, [])
    assert r"**Failed: OSError: \<b\>x\</b\> \[a\](b)**" in note
    assert "    line 1\n    OSError: <b>x</b>" in note
