"""What trials do and how they ended, in words."""

from pathlib import Path
from typing import Any

import pytest

from hpo.config.loading import load_search_config
from hpo.config.schema import SearchConfig
from hpo.reporting.words import ordinal, status_of
from hpo.study.trial import TrialStatus, TrialSummary

PAUSE = {"facts_so_far": {"epoch": 2, "facts": {"best_epoch": 2}}}


@pytest.fixture
def config(search_file: Path) -> SearchConfig:
    return load_search_config(search_file, ["scheduler={name: freeze_thaw}"])[0]


def trial(state: TrialStatus, **facts: Any) -> TrialSummary:
    return TrialSummary(7, state, None, {"model.drop_rate": 0.1}, {1: 0.5, 2: 0.75}, facts)


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
    assert status_of(trial(TrialStatus(state), **facts), config, [3, 5, 7]) == words


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
