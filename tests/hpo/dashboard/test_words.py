"""Trials in words."""

from pathlib import Path
from typing import Any

import pytest

from hpo.config.loading import load_search_config
from hpo.config.schema import SearchConfig
from hpo.dashboard.words import attributes_of, shown_state, trial_note
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
