import dataclasses
import math
from pathlib import Path

import pytest
from finalist_trials import trial

from hpo.config.loading import load_search_config
from hpo.schedulers.first_rung import FirstRung
from hpo.selection.ranking import predicted_ranking


def test_values_rank_trials_where_none_is_stopped(search_file: Path) -> None:
    config, _ = load_search_config(search_file, ["scheduler={name: none}"])
    trials = (
        trial(0, [0.5, 0.4]),
        trial(1, [0.9], "PRUNED"),
        trial(2, [0.7]),
        trial(3, [0.5]),
    )
    assert predicted_ranking(config, trials) == (2, 0, 3)


def test_of_several_objectives_the_front_comes_first(search_file: Path) -> None:
    objectives = "study.objectives=[[val_top1, maximize], [num_parameters, minimize]]"
    config, _ = load_search_config(search_file, [objectives])
    trials = [
        dataclasses.replace(trial(number, [value]), attributes={"num_parameters": size})
        for number, (value, size) in enumerate([(0.8, 9), (0.5, 1), (0.9, 8), (0.7, 7)])
    ]
    assert predicted_ranking(config, trials) == (2, 3, 1, 0)


@pytest.mark.parametrize(
    "scheduler", ["freeze_thaw", "asha", "asha_promotion", "hyperband", "median"]
)
@pytest.mark.parametrize(("metric", "best"), [("val_top1", 2), ("val_loss", 1)])
def test_curves_rank_trials_that_did_not_come_to_their_end_too(
    search_file: Path, metric: str, best: int, scheduler: str
) -> None:
    direction = "minimize" if metric == "val_loss" else "maximize"
    config, _ = load_search_config(
        search_file,
        [f"scheduler={{name: {scheduler}}}", f"study.objectives=[[{metric}, {direction}]]",
         "train.max_epochs=8"],
    )  # fmt: skip
    trials = (
        trial(0, [0.3 + 0.02 * i for i in range(8)]),
        trial(1, [0.1 + 0.01 * i for i in range(8)]),
        trial(2, [0.6, 0.75], "PRUNED", "paused at epoch 2", drop=0.45),
        trial(3, [0.5, math.nan], "PRUNED", "diverged", drop=0.3),
        trial(4, [], "FAIL", drop=0.2),
    )
    ranking = predicted_ranking(config, trials)
    assert set(ranking) == {0, 1, 2, 3}
    assert ranking[0] == best
    better = 0.01 if metric == "val_loss" else 0.99
    diverged = trial(3, [better, math.nan], "PRUNED", "diverged", drop=0.3)
    assert predicted_ranking(config, (*trials[:3], diverged))[0] == best


def test_what_comes_before_a_raised_first_level_makes_no_finalist(search_file: Path) -> None:
    overrides = ["scheduler={name: freeze_thaw}", "train.max_epochs=8"]  # levels 1, 2, 4, 8
    config, _ = load_search_config(search_file, overrides)
    level = FirstRung(epoch=4, late=4, num_trials=9, agreement={}).model_dump(mode="json")
    for levels, are_same in (([], False), ([level], True)):
        rankings = []
        for first in (0.9, 0.1):
            drops = [0.05 * i for i in range(8)]
            late = [[0.5 + drop] * 3 if i % 2 else [] for i, drop in enumerate(drops)]
            trials = [
                trial(i, [first * drop, *late[i]], "PRUNED", "paused", drop=drop)
                for i, drop in enumerate(drops)
            ]
            trials[2] = trial(2, [5 * first], "PRUNED", "paused", drop=drops[2])
            rankings.append(predicted_ranking(config, trials, None, levels))
        assert (rankings[0] == rankings[1]) == are_same


@pytest.mark.parametrize("state", ["COMPLETE", "PRUNED"])
@pytest.mark.parametrize("metric", ["val_top1", "val_loss"])
def test_a_curve_that_falls_ranks_by_its_best_epoch(
    search_file: Path, metric: str, state: str
) -> None:
    direction = "minimize" if metric == "val_loss" else "maximize"
    config, _ = load_search_config(
        search_file,
        ["scheduler={name: freeze_thaw}", "train.max_epochs=8",
         f"study.objectives=[[{metric}, {direction}]]"],
    )  # fmt: skip
    rises = [0.3, 0.5, 0.6, 0.65, 0.68, 0.7, 0.71, 0.72]
    falls = [0.4, 0.7, 0.85, 0.9, 0.85, 0.75, 0.65, 0.6]
    curves = (
        [rises, falls] if metric == "val_top1" else [[1 - v for v in c] for c in (rises, falls)]
    )
    trials = [trial(i, curves[i >= 4], state, drop=0.05 * i) for i in range(8)]
    assert set(predicted_ranking(config, trials)[:4]) == {4, 5, 6, 7}
