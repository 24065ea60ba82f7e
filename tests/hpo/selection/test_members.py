"""Which trainings may be members of a soup or an ensemble."""

from pathlib import Path

import pytest
from finalist_trials import finished, tell

from hpo.config.loading import load_search_config
from hpo.config.schema import SearchConfig
from hpo.selection.finalists import Finalists, asked_for, retrain_config, training_name
from hpo.selection.members import is_delivered_as_asked, member_candidates
from hpo.study.study import SearchStudy


def searched(
    search_file: Path, tmp_path: Path, *settings: str, fold_ratio: float | None = None
) -> tuple[SearchConfig, SearchStudy]:
    """A study of three trials, all of them finalists on two seeds; trial 2 has won."""
    config, _ = load_search_config(search_file, ["retrain.seeds=2", "retrain.top_k=2", *settings])
    study = finished(config, tmp_path, [0.5, 0.8, 0.9])
    finalists = Finalists(
        numbers=(2, 1, 0), asked_for=asked_for(config, study.trials()), num_seeds=2,
        num_val_images=30, fold_ratio=fold_ratio,
    )  # fmt: skip
    study.metadata.finalists = finalists.model_dump(mode="json")
    tell(config, study, finalists, {2: 0.9, 1: 0.8, 0: 0.5})
    return config, study


def seeds(config: SearchConfig, study: SearchStudy) -> list[tuple[int, int]]:
    return [(n, t.seed) for n, t in member_candidates(config, study, study.trials(), 2)]


@pytest.mark.parametrize("deliver", ["soup", "ensemble"])
def test_members_of_a_soup_or_ensemble_are_all_seeds_trainings(
    search_file: Path, tmp_path: Path, deliver: str
) -> None:
    config, study = searched(search_file, tmp_path, f"retrain.deliver={deliver}")
    assert seeds(config, study) == [(2, 1), (1, 1), (0, 1), (2, 2), (1, 2), (0, 2)]


def test_where_val_is_split_off_train_an_ensemble_has_one_seeds_trainings(
    search_file: Path, tmp_path: Path
) -> None:
    """The others were trained on images of this val."""
    config, study = searched(search_file, tmp_path, "retrain.deliver=ensemble", fold_ratio=0.25)
    assert seeds(config, study) == [(2, 1), (1, 1), (0, 1)]


def test_a_training_that_diverged_is_no_member_of_an_ensemble(
    search_file: Path, tmp_path: Path
) -> None:
    config, study = searched(search_file, tmp_path, "retrain.deliver=ensemble")
    name = training_name(1, retrain_config(config, study.trials()[1].params))
    broken = study.metadata.fresh_trainings[name] | {"value": None, "best_epoch": None}
    study.metadata.add_fresh_training(name, broken)
    assert (1, 1) not in seeds(config, study)


def test_a_soup_is_of_one_architecture_and_an_ensemble_of_any(
    search_file: Path, tmp_path: Path
) -> None:
    names = "{type: categorical, choices: [sg_former_pico, sg_former_nano]}"
    settings = (f"space.model.name={names}", "study.sampler=random")
    for deliver in ("soup", "ensemble"):
        place = tmp_path / deliver
        place.mkdir()
        config, study = searched(search_file, place, f"retrain.deliver={deliver}", *settings)
        found = member_candidates(config, study, study.trials(), 2)
        models = {train.model.name for _, train in found}
        kinds = {trial.params["model.name"] for trial in study.trials()}
        assert len(kinds) == 2
        assert models == (kinds if deliver == "ensemble" else {found[0][1].model.name})


def test_without_a_soup_or_ensemble_the_winner_is_alone(search_file: Path, tmp_path: Path) -> None:
    config, study = searched(search_file, tmp_path)
    assert seeds(config, study) == [(2, 1)]


def test_a_winner_alone_is_not_the_ensemble_that_was_asked_for(
    search_file: Path, tmp_path: Path
) -> None:
    from hpo.model_files import ModelFiles

    config, study = searched(search_file, tmp_path, "retrain.deliver=ensemble")
    winner, best = study.trials()[2], tmp_path / "best"
    best.mkdir()
    (best / "config.yaml").write_text(retrain_config(config, winner.params).model_dump_json())
    (best / "export.json").write_text("{}")
    assert not is_delivered_as_asked(config, ModelFiles(best), winner)
    (best / "metrics.json").write_text('{"val": null, "combination": {"asked": "ensemble"}}')
    assert is_delivered_as_asked(config, ModelFiles(best), winner)
