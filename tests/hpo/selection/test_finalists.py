import dataclasses
import math
from pathlib import Path

import pytest
from finalist_trials import PARAMS, SPACE, finished, missing, tell, tell_one, trial

from hpo.config.loading import load_search_config
from hpo.config.schema import SearchConfig
from hpo.selection.finalists import (
    Finalists,
    asked_for,
    choose_finalists,
    comparison_progress,
    has_candidates,
    is_settled,
    read_finalists,
    read_verdict,
    retrain_config,
    trainings_of,
    trainings_without_teacher,
    winner_of,
    winners_of,
)
from hpo.study.study import SearchStudy
from hpo.study.trial import TrialSummary


@pytest.fixture
def config(search_file: Path) -> SearchConfig:
    return load_search_config(search_file, ["retrain.seeds=2", "retrain.top_k=2"])[0]


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


def test_a_finalist_is_measured_on_all_of_val(search_file: Path) -> None:
    config, _ = load_search_config(search_file, ["train.eval_images=20"])
    assert config.train.eval_images == 20
    assert retrain_config(config, PARAMS).eval_images is None


@pytest.mark.parametrize(("gpus", "device"), [(0, "cpu"), (None, "auto")])
def test_trials_without_a_gpu_are_retrained_without_one(
    search_file: Path, gpus: int | None, device: str
) -> None:
    overrides = [f"resources.gpus_per_trial={'null' if gpus is None else gpus}"]
    config, _ = load_search_config(search_file, [*overrides, "train.device=auto"])
    assert retrain_config(config, PARAMS).device == device


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
    assert choose_finalists(trials, (1, 2, 3, 4, 0), top_k=2, space=SPACE) == (1, 3, 0)
    assert choose_finalists(trials, (0, 1, 2, 3, 4), top_k=2, space=SPACE) == (0, 1)
    assert choose_finalists(trials, (0, 1, 2, 3, 4), top_k=1, space=SPACE) == (0,)


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
    assert choose_finalists(trials, (0, 1), top_k=3, space=SPACE) == (1,)


def test_what_misses_a_constraint_is_no_finalist_but_the_default_to_compare_with() -> None:
    trials = (trial(0, [0.5]), missing(trial(1, [0.9])), trial(2, [0.7]), trial(3, [0.6]))
    assert choose_finalists(trials, (1, 2, 3, 0), top_k=2, space=SPACE) == (2, 3, 0)
    default = missing(trials[0])
    assert choose_finalists((default, *trials[1:]), (1, 2, 0, 3), 3, SPACE) == (
        2,
        3,
        0,
    )
    ruled_out = missing(trial(0, [], "PRUNED", "infeasible: latency_ms 9, not <= 5"))
    assert choose_finalists((ruled_out, *trials[1:]), (1, 2, 3), top_k=1, space=SPACE) == (2,)


def test_the_default_stands_for_its_own_params() -> None:
    trials = (trial(0, [0.5], drop=0.1), trial(1, [0.9], drop=0.1), trial(2, [0.8], drop=0.2))
    assert choose_finalists(trials, (1, 2, 0), top_k=2, space=SPACE) == (2, 0)


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
        other, _ = load_search_config(
            search_file, ["retrain={seeds: 2, top_k: 2, max_share: null}", setting]
        )
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


def test_under_a_bound_on_trained_models_the_comparison_alone_names_a_winner(
    search_file: Path, tmp_path: Path
) -> None:
    bound = ["study.constraints=[int8_top1_drop <= 0.01]", "export.int8=true"]
    two = load_search_config(
        search_file, ["retrain={seeds: 2, top_k: 2, max_share: null}", *bound]
    )[0]
    none = load_search_config(search_file, ["retrain.seeds=0", *bound])[0]
    study = finished(two, tmp_path, [0.5, 0.9])
    trials = study.trials()
    assert winners_of(two, trials, None) == ()
    assert winners_of(none, trials, None) == (trials[1],)
    finalists = chosen(two, study, (1, 0))
    tell(two, study, finalists, {0: 0.5, 1: 0.6})
    verdict = read_verdict(two, study, trials)
    assert winners_of(two, trials, verdict) == (trials[1],)
    for name, values in study.metadata.fresh_trainings.items():
        study.metadata.add_fresh_training(name, values | {"int8_top1_drop": 0.02})
    assert read_verdict(two, study, trials) is None


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


def test_params_that_differ_by_rounding_or_in_order_are_one_finalist() -> None:
    in_steps = trial(2, [0.8], drop=0.1 + 0.2)
    reordered = dataclasses.replace(in_steps, params=dict(reversed(in_steps.params.items())))
    for twin in (in_steps, reordered):
        trials = (trial(0, [0.5]), trial(1, [0.9], drop=0.3), twin, trial(3, [0.7]))
        assert choose_finalists(trials, (1, 2, 3, 0), top_k=2, space=SPACE) == (1, 3, 0)
        as_default = (dataclasses.replace(twin, number=0), *trials[1:2], *trials[3:])
        assert choose_finalists(as_default, (1, 3, 0), top_k=2, space=SPACE) == (3, 0)


def test_a_winner_with_a_teacher_is_trained_without_it_on_the_same_seeds(
    search_file: Path, tmp_path: Path
) -> None:
    taught, _ = load_search_config(
        search_file,
        ["retrain.seeds=2", "retrain.top_k=1", f"train.distillation.teacher={tmp_path}"],
    )
    assert taught.num_fresh_trainings == 6
    study = finished(taught, tmp_path, [0.5, 0.9])
    finalists = Finalists(
        numbers=(1, 0), asked_for=asked_for(taught, study.trials()), num_seeds=2,
        num_val_images=30, fold_ratio=None,
    )  # fmt: skip
    study.metadata.finalists = finalists.model_dump(mode="json")
    tell(taught, study, finalists, {1: 0.9, 0: 0.5})
    verdict = read_verdict(taught, study, study.trials())
    assert verdict is not None
    assert not is_settled(taught, study, study.trials())
    alone = list(trainings_without_teacher(taught, study.trials(), verdict))
    assert [(n, train.seed) for n, train in alone] == [(1, 1), (1, 2)]
    assert not any(train.distillation.teacher for _, train in alone)
    for number, train in alone:
        tell_one(study, number, train, 0.8)
    assert is_settled(taught, study, study.trials())
    known = read_verdict(taught, study, study.trials())
    assert known is not None
    assert known.teacher is not None
    assert known.teacher.alone.mean == pytest.approx(0.8)


def test_a_single_finalist_with_a_teacher_is_trained_on_fresh_seeds(
    search_file: Path, tmp_path: Path
) -> None:
    for teacher, count in ((f"[{tmp_path}]", 2), ("[]", 0)):
        config, _ = load_search_config(
            search_file, ["retrain.seeds=2", f"train.distillation.teacher={teacher}"]
        )
        trials = [trial(0, [0.5])]
        alone = Finalists(
            numbers=(0,), asked_for=asked_for(config, trials), num_seeds=2, num_val_images=30,
            fold_ratio=None,
        )  # fmt: skip
        assert len(list(trainings_of(config, trials, alone))) == count
