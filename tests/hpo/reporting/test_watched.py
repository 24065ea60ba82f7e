"""Tests of looking at a search that another process runs."""

from pathlib import Path

import optuna
import pytest
from reports import compare, make_study

from hpo.config.loading import load_search_config
from hpo.config.schema import RetrainConfig, SearchConfig
from hpo.engine.observer import Place
from hpo.errors import StudyError
from hpo.reporting.watched import WatchedStudy, line_of
from hpo.run_folder import RunFolder
from hpo.study.lease import leased

STATES = ["COMPLETE", "PRUNED", "RUNNING", "RUNNING"]


def tell(_text: str) -> None:
    """Takes the notes of a lease."""


@pytest.fixture
def pausing(search_file: Path) -> SearchConfig:
    overrides = ["study.num_trials=9", "scheduler={name: freeze_thaw}"]
    return load_search_config(search_file, overrides)[0]


def test_a_search_is_seen_as_its_own_terminal_shows_it(
    pausing: SearchConfig, run: RunFolder
) -> None:
    study = make_study(pausing, run, STATES)
    study.pause(3, {"best_epoch": 2})
    with leased(study, tell):
        watched = WatchedStudy(study, pausing, run)
        snapshot = watched.look()
    assert not watched.is_over
    assert snapshot.phase == "searching"
    assert snapshot.states == {"COMPLETE": 1, "PRUNED": 1}
    assert snapshot.num_paused == 1
    trial = snapshot.running[2]
    assert (trial.epoch, trial.latest, trial.best) == (2, 0.52, 0.52)
    assert snapshot.best == (3, 0.53)
    assert line_of(snapshot) == (
        "searching; trial 2 epoch 2: 0.5200; 2 of 9 trials ended, 1 complete, 1 pruned, 0 failed, "
        "best val_top1 0.5300 (trial 3)",
        "0:00 elapsed",
    )


def test_the_time_left_follows_the_pace_of_the_search(
    config: SearchConfig, run: RunFolder
) -> None:
    study = make_study(config, run, ["COMPLETE", "RUNNING"])
    with leased(study, tell):
        study.metadata.seconds_searched = 40.0
        snapshot = WatchedStudy(study, config, run).look()
    # Ten seconds an epoch; one trial of two epochs has ended, seven wait, and one runs.
    assert snapshot.seconds == 40
    assert snapshot.seconds_left == pytest.approx(7 * 20 + 10)


def test_the_time_goes_on_between_the_notes_of_the_search(
    config: SearchConfig, run: RunFolder
) -> None:
    now = 100.0
    study = make_study(config, run, ["RUNNING"])
    watched = WatchedStudy(study, config, run, lambda: now)
    with leased(study, tell):
        study.metadata.seconds_searched = 40.0
        assert watched.look().seconds == 40
        now += 5
        assert watched.look().seconds == 45
        study.metadata.seconds_searched = 47.0
        assert watched.look().seconds == 47
    now += 5
    assert watched.look().seconds == 47  # nothing runs


def test_it_is_over_when_nothing_works_on_the_study(config: SearchConfig, run: RunFolder) -> None:
    watched = WatchedStudy(make_study(config, run, STATES), config, run)
    snapshot = watched.look()
    assert watched.is_over
    assert snapshot.phase == "no search runs on the study"
    assert snapshot.seconds_left is None


def test_finalists_are_told(config: SearchConfig, run: RunFolder) -> None:
    config = config.model_copy(update={"retrain": RetrainConfig(seeds=2, max_share=None)})
    study = make_study(config, run, ["COMPLETE", "COMPLETE", "COMPLETE"])
    compare(config, study, {1: [0.9, 0.9], 0: [0.5, 0.5]})
    chosen = study.metadata.finalists
    assert chosen is not None
    with leased(study, tell):
        watched = WatchedStudy(study, config, run)
        assert watched.look().phase == "delivering the winner"
        study.metadata.finalists = chosen | {"numbers": [1, 0, 2]}
        assert watched.look().phase == "comparing the finalists: 4 of 6"


def test_node_and_gpu_are_read_from_the_trials_files(config: SearchConfig, run: RunFolder) -> None:
    study = make_study(config, run, ["RUNNING"])
    folder = run.trials / "0"
    folder.mkdir(parents=True)
    (folder / "attempts.csv").write_text(
        "started_at,hostname,pid,epoch\n2026-01-01,alpha,1,1\n2026-01-01,beta,1,2\n"
    )
    (folder / "epochs.csv").write_text("epoch,gpu_utilization\n1,0.5\n2,0.75\n")
    watched = WatchedStudy(study, config, run)
    assert watched.look().running[0].place == Place("beta", None, 0.75)
    (folder / "epochs.csv").write_text("epoch,gpu_utilization\n1,0.5\n2,\n3,\n")
    assert watched.look().running[0].place.busy == 0.75  # not read again before an epoch ends
    study.report(0, {3: 0.5})
    assert watched.look().running[0].place == Place("beta", None, None)


def test_a_database_that_is_away_leaves_the_last_look(
    config: SearchConfig, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(config, run, STATES)
    with leased(study, tell):
        watched = WatchedStudy(study, config, run)
        seen = watched.look()

        def away(*_: object, **__: object) -> None:
            raise optuna.exceptions.StorageInternalError("gone")

        monkeypatch.setattr(study.optuna_study._storage, "get_all_trials", away)
        snapshot = watched.look()
        assert snapshot.phase == "the study's database does not answer"
        assert snapshot.states == seen.states
        assert not watched.is_over
        monkeypatch.undo()


def test_a_study_that_was_deleted_is_named(config: SearchConfig, run: RunFolder) -> None:
    study = make_study(config, run, STATES)
    watched = WatchedStudy(study, config, run)
    watched.look()
    optuna.delete_study(study_name=study.name, storage=run.storage_url(config))
    with pytest.raises(StudyError, match="'tiny' is gone"):
        watched.look()
