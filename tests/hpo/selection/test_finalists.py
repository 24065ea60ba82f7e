import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from studies import create_study

from hpo.config.loading import load_search_config
from hpo.config.schema import SearchConfig
from hpo.schedulers.first_rung import FirstLevel
from hpo.selection.finalists import (
    Finalists,
    affordable,
    asked_for,
    choose_finalists,
    comparison_progress,
    has_candidates,
    is_settled,
    predicted_ranking,
    read_finalists,
    read_verdict,
    retrain_config,
    training_name,
    trainings_of,
    winner_of,
    winners_of,
)
from hpo.study.study import SearchStudy
from hpo.study.trial import TrialSummary

PARAMS = {"optimizer.learning_rate": 1e-3, "model.drop_rate": 0.25}


@pytest.fixture
def config(search_file: Path) -> SearchConfig:
    return load_search_config(search_file, ["retrain.seeds=2", "retrain.top_k=2"])[0]


def trial(
    number: int,
    curve: Sequence[float],
    state: str = "COMPLETE",
    reason: str = "",
    drop: float = -1,
) -> TrialSummary:
    known = [value for value in curve if not math.isnan(value)]
    return TrialSummary(
        number=number,
        state=state,
        value=max(known) if state == "COMPLETE" else None,
        params=PARAMS | {"model.drop_rate": number / 20 if drop < 0 else drop},
        curve=dict(enumerate(curve, start=1)),
        attributes={"end_reason": reason},
    )


@pytest.mark.parametrize(("override", "epochs"), [(None, 4), ("retrain.max_epochs=9", 9)])
def test_a_finalist_trains_at_full_length_on_seeds_and_images_of_its_own(
    search_file: Path, override: str | None, epochs: int
) -> None:
    config, _ = load_search_config(search_file, [override] if override else [])
    for i in range(3):
        train = retrain_config(config, PARAMS, i)
        assert (train.max_epochs, train.seed) == (epochs, config.train.seed + 1 + i)
        assert (train.optimizer.learning_rate, train.model.drop_rate) == (1e-3, 0.25)
        assert train.data.val_seed == config.train.data.val_seed + 1 + i
    assert retrain_config(config, PARAMS) == retrain_config(config, PARAMS, 0)


@pytest.mark.parametrize(("gpus", "device"), [(0, "cpu"), (None, "auto")])
def test_trials_without_a_gpu_are_retrained_without_one(
    search_file: Path, gpus: int | None, device: str
) -> None:
    overrides = [f"resources.gpus_per_trial={'null' if gpus is None else gpus}"]
    config, _ = load_search_config(search_file, [*overrides, "train.device=auto"])
    assert retrain_config(config, PARAMS).device == device


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
    level = FirstLevel(epoch=4, late=4, num_trials=9, agreement={}).model_dump(mode="json")
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


@pytest.mark.parametrize(
    ("room", "numbers", "num_seeds"),
    [
        (8, (1, 2, 3, 0), 2),
        (7, (1, 2, 3, 0), 1),
        (4, (1, 2, 3, 0), 1),
        (3, (1, 2, 0), 1),
        (2, (1, 0), 1),
        (1, (1,), 1),
    ],
)
def test_a_small_budget_compares_on_fewer_seeds_then_fewer_finalists(
    config: SearchConfig, room: int, numbers: tuple[int, ...], num_seeds: int
) -> None:
    trials = [trial(i, [0.5]) for i in range(4)]
    everyone = Finalists(
        numbers=(1, 2, 3, 0), asked_for=asked_for(config, trials), num_seeds=2,
        num_val_images=100, fold_ratio=None,
    )  # fmt: skip
    found = affordable(config, trials, everyone, (), lambda some: len(some) <= room)
    assert (found.numbers, found.num_seeds) == (numbers, num_seeds)
    names = [training_name(*one) for one in trainings_of(config, trials, everyone)]
    assert affordable(config, trials, everyone, names[: 8 - room], lambda s: len(s) <= room) == (
        everyone
    )


def test_the_default_keeps_its_place_among_fewer_finalists(config: SearchConfig) -> None:
    trials = [trial(i, [0.5]) for i in range(3)]
    everyone = Finalists(
        numbers=(0, 1, 2), asked_for=asked_for(config, trials), num_seeds=1, num_val_images=100,
        fold_ratio=None,
    )  # fmt: skip
    found = affordable(config, trials, everyone, (), lambda some: len(some) <= 2)
    assert found.numbers == (0, 1)


def test_any_sound_trial_within_the_constraints_may_win() -> None:
    paused = trial(1, [0.5], "PRUNED", "paused at epoch 1")
    broken = trial(2, [0.9, math.nan], "PRUNED", "diverged")
    assert has_candidates([missing(trial(0, [0.7])), paused])
    assert not has_candidates([missing(trial(0, [0.7])), missing(paused), broken])
    assert not has_candidates([trial(0, [], "FAIL")])


def test_finalists_are_the_best_of_different_params_and_the_default() -> None:
    trials = (
        trial(0, [0.5]),
        trial(1, [0.9], drop=0.3),
        trial(2, [0.8], drop=0.3),
        trial(3, [0.7]),
        trial(4, [0.6]),
    )
    assert choose_finalists(trials, (1, 2, 3, 4, 0), top_k=2) == (1, 3, 0)
    assert choose_finalists(trials, (0, 1, 2, 3, 4), top_k=2) == (0, 1)
    assert choose_finalists(trials, (0, 1, 2, 3, 4), top_k=1) == (0,)


@pytest.mark.parametrize(
    "broken",
    [
        trial(0, [], "FAIL"),
        trial(0, [0.9, math.nan], "PRUNED", "diverged"),
        trial(0, [math.nan], "PRUNED"),
    ],
)
def test_what_broke_or_diverged_is_no_finalist(broken: TrialSummary) -> None:
    trials = (broken, trial(1, [0.5]))
    assert choose_finalists(trials, (0, 1), top_k=3) == (1,)


def missing(trial: TrialSummary) -> TrialSummary:
    return dataclasses.replace(trial, constraints={"val_top1 >= 0.95": 0.1})


def test_what_misses_a_constraint_is_no_finalist_but_the_default_to_compare_with() -> None:
    trials = (trial(0, [0.5]), missing(trial(1, [0.9])), trial(2, [0.7]), trial(3, [0.6]))
    assert choose_finalists(trials, (1, 2, 3, 0), top_k=2) == (2, 3, 0)
    default = missing(trials[0])
    assert choose_finalists((default, *trials[1:]), (1, 2, 0, 3), top_k=3) == (2, 3, 0)
    ruled_out = missing(trial(0, [], "PRUNED", "infeasible: latency_ms 9, not <= 5"))
    assert choose_finalists((ruled_out, *trials[1:]), (1, 2, 3), top_k=1) == (2,)


def test_the_default_stands_for_its_own_params() -> None:
    trials = (trial(0, [0.5], drop=0.1), trial(1, [0.9], drop=0.1), trial(2, [0.8], drop=0.2))
    assert choose_finalists(trials, (1, 2, 0), top_k=2) == (2, 0)


def finished(
    config: SearchConfig,
    tmp_path: Path,
    values: Sequence[float],
    missed: Sequence[int] = (),
) -> SearchStudy:
    """A study with a complete trial of each value; some have missed a constraint."""
    study = create_study(f"sqlite:///{tmp_path / 'study.db'}", config)
    for value in values:
        number = study.ask().number
        study.report(number, {1: value})
        constraints = {"val_top1 >= 0.5": 0.1 if number in missed else -0.1}
        facts = {"best_value": value, "num_parameters": 100 * number}
        study.finish(number, "COMPLETE", facts, value, constraints)
    return study


def chosen(config: SearchConfig, study: SearchStudy, numbers: tuple[int, ...]) -> Finalists:
    finalists = Finalists(
        numbers=numbers,
        asked_for=asked_for(config, study.trials()),
        num_seeds=config.retrain.seeds,
        num_val_images=10_000,
        fold_ratio=None,
    )
    study.metadata.finalists = finalists.model_dump(mode="json")
    assert read_finalists(study) == finalists
    return finalists


def tell(
    config: SearchConfig, study: SearchStudy, finalists: Finalists, values: dict[int, float]
) -> None:
    """The finalists' trainings, each with its value."""
    for number, train in trainings_of(config, study.trials(), finalists):
        study.metadata.add_fresh_training(
            training_name(number, train),
            {
                "trial": number, "seed": train.seed, "value": values[number], "best_epoch": 4,
                "num_epochs": 4, "max_epochs": 4, "seconds": 1.0, "gpu_seconds": 0.0,
            },
        )  # fmt: skip


def test_the_winner_is_who_is_best_on_fresh_seeds(config: SearchConfig, tmp_path: Path) -> None:
    study = finished(config, tmp_path, [0.5, 0.9, 0.8])
    trials = study.trials()
    assert not is_settled(config, study, trials)
    finalists = chosen(config, study, (1, 2, 0))
    assert [n for n, _ in trainings_of(config, trials, finalists)] == [1, 2, 0, 1, 2, 0]
    assert not is_settled(config, study, trials)
    assert comparison_progress(config, study, trials) == (0, 6)
    assert read_verdict(config, study, trials) is None
    assert winner_of(config, trials, None) == trials[1]
    tell(config, study, finalists, {0: 0.5, 1: 0.6, 2: 0.8})
    assert is_settled(config, study, trials)
    assert comparison_progress(config, study, trials) == (6, 6)
    verdict = read_verdict(config, study, trials)
    assert verdict is not None
    assert (verdict.winner, verdict.has_default) == (2, True)
    assert winner_of(config, trials, verdict) == trials[2]
    assert [training.seed for training in verdict.trainings] == [1, 2]


def test_a_verdict_is_of_the_settings_that_it_was_made_with(
    config: SearchConfig, search_file: Path, tmp_path: Path
) -> None:
    study = finished(config, tmp_path, [0.5, 0.9])
    tell(config, study, chosen(config, study, (1, 0)), {0: 0.5, 1: 0.6})
    trials = study.trials()
    for setting in ("retrain.seeds=3", "retrain.top_k=5", "retrain.max_epochs=7"):
        other, _ = load_search_config(search_file, ["retrain={seeds: 2, top_k: 2}", setting])
        assert not is_settled(other, study, trials)
        assert read_verdict(other, study, trials) == read_verdict(config, study, trials)
    none, _ = load_search_config(search_file, ["retrain.seeds=0"])
    assert is_settled(none, study, trials)
    number = study.ask().number
    study.report(number, {1: 0.95})
    study.finish(number, "COMPLETE", {}, 0.95)
    assert not is_settled(config, study, study.trials())
    assert read_verdict(config, study, study.trials()) is None


def test_a_default_without_rivals_wins_untried(config: SearchConfig, tmp_path: Path) -> None:
    study = finished(config, tmp_path, [0.9, 0.5])
    finalists = chosen(config, study, (0,))
    trials = study.trials()
    assert list(trainings_of(config, trials, finalists)) == []
    assert is_settled(config, study, trials)
    assert comparison_progress(config, study, trials) is None
    verdict = read_verdict(config, study, trials)
    assert verdict is not None
    assert (verdict.winner, verdict.means) == (0, {})


def test_a_default_that_misses_a_constraint_does_not_win_without_rivals(
    config: SearchConfig, tmp_path: Path
) -> None:
    study = finished(config, tmp_path, [0.9], missed=[0])
    chosen(config, study, (0,))
    assert read_verdict(config, study, study.trials()) is None


def test_a_default_that_misses_a_constraint_is_the_measure_but_cannot_win(
    config: SearchConfig, tmp_path: Path
) -> None:
    study = finished(config, tmp_path, [0.9, 0.8, 0.7], missed=[0])
    finalists = chosen(config, study, (1, 2, 0))
    tell(config, study, finalists, {0: 0.9, 1: 0.6, 2: 0.8})
    trials = study.trials()
    verdict = read_verdict(config, study, trials)
    assert verdict is not None
    assert (verdict.winner, verdict.has_default) == (2, True)
    assert verdict.gains[2].mean == pytest.approx(-0.1)
    assert winners_of(config, trials, verdict) == (trials[2],)


def test_several_objectives_are_settled_without_finalists(
    search_file: Path, tmp_path: Path
) -> None:
    objectives = "study.objectives=[[val_top1, maximize], [num_parameters, minimize]]"
    config, _ = load_search_config(
        search_file, ["retrain.seeds=2", objectives, "study.select=front"]
    )
    study = finished(config, tmp_path, [0.5, 0.9, 0.8, 0.95])
    trials = study.trials()
    assert is_settled(config, study, trials)
    assert comparison_progress(config, study, trials) is None
    assert read_verdict(config, study, trials) is None
    assert {trial.number for trial in winners_of(config, trials, None)} == {0, 1, 3}
    assert winner_of(config, trials, None) == winners_of(config, trials, None)[0]
