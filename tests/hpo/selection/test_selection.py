import math
from pathlib import Path
from typing import Any

import pytest

from hpo.config.loading import load_search_config
from hpo.config.schema import StudyConfig
from hpo.selection.selection import best_so_far, objective_values, pareto_front, selected
from hpo.study.trial import TrialSummary

TWO = [["latency_ms", "minimize"], ["val_top1", "maximize"]]


@pytest.fixture
def study_config(search_file: Path) -> Any:
    def load(**study: Any) -> StudyConfig:
        config = load_search_config(search_file)[0].study
        return StudyConfig.model_validate({**config.model_dump(), "select": None, **study})

    return load


def trial(
    number: int, value: float | None, latency: float = 1.0, missed: float = 0.0
) -> TrialSummary:
    state = "PRUNED" if value is None else "COMPLETE"
    attributes = {"latency_ms": latency}
    return TrialSummary(number, state, value, {}, {1: 0.5}, attributes, {"c": missed})


def numbers(trials: tuple[TrialSummary, ...]) -> list[int]:
    return [trial.number for trial in trials]


def test_with_one_objective_the_earliest_of_the_best_is_selected(study_config: Any) -> None:
    trials = [trial(0, 0.5), trial(1, 0.75), trial(2, 0.75), trial(3, None)]
    assert numbers(selected(trials, study_config())) == [1]
    assert numbers(pareto_front(trials, study_config())) == [1]
    loss = study_config(objectives=[["val_loss", "minimize"]])
    assert numbers(selected(trials, loss)) == [0]


def test_what_misses_a_constraint_is_never_selected(study_config: Any) -> None:
    trials = [trial(0, 0.5), trial(1, 0.75, missed=0.1)]
    assert numbers(selected(trials, study_config())) == [0]
    assert selected(trials[1:], study_config()) == ()


@pytest.mark.parametrize(
    ("select", "expected"), [(None, [2]), ("knee", [2]), ("best", [0]), ("front", [2, 0, 3])]
)
def test_select_says_which_of_the_front(
    study_config: Any, select: str | None, expected: list[int]
) -> None:
    trials = [
        trial(0, 0.9, 10.0), trial(1, 0.7, 9.0), trial(2, 0.88, 2.0), trial(3, 0.5, 1.0),
        trial(4, 0.88, 2.0), trial(5, None, 0.1), trial(6, 0.95, 0.5, missed=1.0),
    ]  # fmt: skip
    config = study_config(objectives=TWO, select=select)
    assert numbers(selected(trials, config)) == expected
    assert numbers(pareto_front(trials, config)) == [0, 2, 3]


def test_values_are_given_by_name_as_far_as_they_are_known(study_config: Any) -> None:
    config = study_config(objectives=TWO)
    assert objective_values(trial(0, 0.5, 2.0), config) == {"latency_ms": 2.0, "val_top1": 0.5}
    assert objective_values(trial(0, None, 2.0), config) == {"latency_ms": 2.0, "val_top1": None}


@pytest.mark.parametrize(
    ("scheduler", "objective", "expected"),
    [
        ("asha", "[val_top1, maximize]", (1, 0.6)),
        ("freeze_thaw", "[val_top1, maximize]", (2, 0.7)),
        ("asha_promotion", "[val_top1, maximize]", (2, 0.7)),
        ("freeze_thaw", "[val_loss, minimize]", (0, 0.5)),
    ],
)
def test_where_trials_are_paused_the_best_so_far_need_not_have_ended(
    search_file: Path, scheduler: str, objective: str, expected: tuple[int, float]
) -> None:
    config, _ = load_search_config(
        search_file, [f"scheduler={{name: {scheduler}}}", f"study.objectives=[{objective}]"]
    )
    trials = [
        TrialSummary(0, "COMPLETE", 0.5, {}, {1: 0.5}, {}),
        TrialSummary(1, "COMPLETE", 0.6, {}, {1: 0.55, 2: 0.6}, {}),
        TrialSummary(2, "RUNNING", None, {}, {1: 0.7, 2: math.nan}, {}),
        TrialSummary(3, "FAIL", None, {}, {1: 0.9}, {}),
        TrialSummary(4, "PRUNED", None, {}, {1: 0.9}, {}, {"val_top1 <= 0.8": 0.1}),
        TrialSummary(5, "RUNNING", None, {}, {}, {}),
    ]
    best = best_so_far(trials, config)
    assert best is not None
    assert (best[0].number, best[1]) == expected
    assert best_so_far(trials[3:], config) is None
