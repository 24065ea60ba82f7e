import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from studies import create_study

from hpo.config.loading import load_search_config
from hpo.config.schema import SearchConfig
from hpo.selection.importances import importances, importances_with_intervals
from hpo.study.study import SearchStudy

DROPOUT = "model.drop_rate"


def load(search_file: Path, *overrides: str) -> SearchConfig:
    return load_search_config(search_file, ["study.num_trials=40", *overrides])[0]


def by_dropout(params: Mapping[str, Any]) -> float:
    return 0.9 - float(params[DROPOUT])


def make_study(
    config: SearchConfig, folder: Path, states: list[str], value_of: Any = by_dropout
) -> SearchStudy:
    study = create_study(f"sqlite:///{folder / 'study.db'}", config)
    for state in states:
        proposal = study.ask()
        value = value_of(proposal.params)
        study.report(proposal.number, {1: value, 2: value})
        study.finish(proposal.number, state, {}, value if state == "COMPLETE" else None)
    return study


@pytest.mark.parametrize(
    ("scheduler", "states", "is_known"),
    [
        ("freeze_thaw", ["COMPLETE"] * 2 + ["PRUNED"] * 18, True),  # by predicted final values
        ("freeze_thaw", ["PRUNED"] * 8, True),
        ("freeze_thaw", ["PRUNED"] * 7 + ["FAIL"] * 9, False),
        ("freeze_thaw", ["FAIL"] * 12, False),
        ("asha", ["COMPLETE"] * 40, True),
        ("asha", ["COMPLETE"] * 7 + ["PRUNED"] * 18, False),
        ("asha", [], False),
    ],
)
def test_what_matters_is_told_once_enough_is_known(
    search_file: Path, tmp_path: Path, scheduler: str, states: list[str], *, is_known: bool
) -> None:
    config = load(search_file, f"scheduler.name={scheduler}")
    shares = importances(make_study(config, tmp_path, states), config)
    assert set(shares) == (set(config.space) if is_known else set())
    assert next(iter(shares), DROPOUT) == DROPOUT  # the largest share comes first


def test_intervals_are_by_other_trials(search_file: Path, tmp_path: Path) -> None:
    config = load(search_file, "scheduler.name=asha")
    study = make_study(config, tmp_path, ["COMPLETE"] * 40)
    found = importances_with_intervals(study, config)
    assert {path: one.share for path, one in found.items()} == importances(study, config)
    most = found[DROPOUT]
    assert most.low is not None
    assert most.high is not None
    assert 0 <= most.low < most.share < most.high <= 1


def test_what_a_surrogate_predicts_has_no_intervals(search_file: Path, tmp_path: Path) -> None:
    config = load(search_file, "scheduler.name=freeze_thaw")
    found = importances_with_intervals(make_study(config, tmp_path, ["PRUNED"] * 8), config)
    assert found
    assert all(one.low is None and one.high is None for one in found.values())


@pytest.mark.parametrize("scheduler", ["freeze_thaw", "asha"])
@pytest.mark.parametrize("value", [0.5, math.nan])
def test_nothing_matters_where_all_come_to_the_same(
    search_file: Path, tmp_path: Path, scheduler: str, value: float
) -> None:
    config = load(search_file, f"scheduler.name={scheduler}")
    state = "PRUNED" if math.isnan(value) else "COMPLETE"
    study = make_study(config, tmp_path, [state] * 12, lambda _: value)
    assert importances(study, config) == {}


@pytest.mark.parametrize(
    "objectives",
    [
        "[[val_loss, minimize]]",
        "[[val_top1, maximize]]",
        "[[val_top1, maximize], [num_parameters, minimize]]",
    ],
)
def test_what_matters_is_what_makes_good_ones_good(
    search_file: Path, tmp_path: Path, objectives: str
) -> None:
    """Dropout decides among the good trials, the learning rate among the bad ones."""
    config = load(
        search_file,
        f"study.objectives={objectives}",
        "scheduler.name=asha",
        "study.sampler=random",
    )
    sign = 1 if config.study.objective.direction == "maximize" else -1
    study = create_study(f"sqlite:///{tmp_path / 'study.db'}", config)
    for _ in range(100):
        proposal = study.ask()
        gain = 0.4 * (float(proposal.params[DROPOUT]) < 0.1)
        loss = 0.4 * (float(proposal.params["optimizer.learning_rate"]) > 5e-3)
        value = 0.5 + sign * (gain - loss + proposal.number / 1e4)
        study.report(proposal.number, {1: value})
        study.finish(proposal.number, "COMPLETE", {"num_parameters": 7}, value)
    assert next(iter(importances(study, config))) == DROPOUT
