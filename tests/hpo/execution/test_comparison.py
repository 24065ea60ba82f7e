import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from studies import create_study

from hpo.config.loading import load_search_config
from hpo.config.schema import SearchConfig
from hpo.engine.observer import SearchObserver
from hpo.execution import comparison
from hpo.execution.attempts import Attempts
from hpo.execution.cluster import TrialResources
from hpo.execution.comparison import SearchedImages, compare_finalists, fresh_training
from hpo.execution.training import Training
from hpo.run_folder import RunFolder
from hpo.selection.finalists import (
    is_settled,
    read_verdict,
    retrain_config,
    training_name,
)
from hpo.study.study import SearchStudy
from sgformer.config import Metric, TrainConfig
from sgformer.data.image_cache import ImagesId

PARAMS = {"optimizer.learning_rate": 1e-3, "model.drop_rate": 0.25}


@pytest.fixture
def train(search_file: Path) -> TrainConfig:
    return retrain_config(load_search_config(search_file)[0], PARAMS, 2)


@pytest.mark.parametrize(
    ("metric", "picked_by", "value", "best_epoch"),
    [
        ("val_top1", "val_top1", 0.75, 4),  # the last of equals
        ("val_loss", "val_loss", 0.25, 3),
        ("val_top1", "val_loss", 0.625, 3),  # the value of the kept weights
    ],
)
def test_a_training_is_kept_with_its_best_epoch_and_what_it_cost(
    train: TrainConfig, metric: Metric, picked_by: Metric, value: float, best_epoch: int
) -> None:
    early_stopping = train.early_stopping.model_copy(update={"metric": picked_by})
    train = train.model_copy(update={"early_stopping": early_stopping})
    rows = [
        {"epoch": i, "seconds": 2.0, "val_top1": top1, "val_loss": loss}
        for i, (top1, loss) in enumerate(
            [(0.5, 0.4), (0.75, 0.3), (0.625, 0.25), (0.75, 0.26), (math.nan, math.nan)], start=1
        )
    ]
    resources = TrialResources(cpus=1, gpus=0.5, num_slots=4, num_processes=2)
    kept = fresh_training(6, train, metric, rows, 6, resources)
    assert (kept.trial, kept.seed) == (6, train.seed)
    assert (kept.value, kept.best_epoch) == (value, best_epoch)
    assert (kept.num_epochs, kept.max_epochs) == (6, 4)  # one epoch was trained twice
    assert (kept.seconds, kept.gpu_seconds) == (12.0, 12.0)


def test_a_training_that_diverged_at_once_has_no_value(train: TrainConfig) -> None:
    rows = [{"epoch": 1, "seconds": 2.0, "val_top1": math.nan}]
    kept = fresh_training(6, train, "val_top1", rows, 1, TrialResources(1, 0, 1))
    assert (kept.value, kept.best_epoch, kept.num_epochs) == (None, None, 1)


class Notes(SearchObserver):
    """Keeps the notes that a user reads."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


@pytest.mark.parametrize(
    ("limit", "what", "larger"),
    [
        ("budget.total_epochs=60", "the budget", "budget"),
        ("retrain.max_share=0.3", "retrain.max_share=0.3", "retrain.max_share, or null"),
    ],
)
def test_a_raised_limit_trains_what_a_smaller_one_left_out(
    search_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    limit: str, what: str, larger: str,
) -> None:  # fmt: skip
    trained: list[tuple[str, int]] = []

    def train_all(
        trainings: Sequence[Training], *_: Any
    ) -> Iterator[tuple[int, dict[str, Any] | None]]:
        for i, training in enumerate(trainings):
            assert training.mark == run.mark()
            assert training.num_epochs == 0
            training.folder.mkdir(parents=True)
            trained.append((training.folder.name, training.config.seed))
            yield i, {"epoch": 1, "seconds": 1.0, "val_top1": 0.5}
            yield i, None

    monkeypatch.setattr(comparison, "retrain_all_on_cluster", train_all)
    settings = ("retrain={seeds: 3, top_k: 2, max_share: null}", "study.num_trials=3")
    small, _ = load_search_config(search_file, (*settings, limit))
    raised, _ = load_search_config(search_file, (*settings, "budget.total_epochs=4000"))
    run = RunFolder(tmp_path / "run")
    run.make()
    study = create_study(run.storage_url(small), small)
    for value in (0.5, 0.9, 0.8):
        number = study.ask().number
        study.report(number, {1: value})
        # The trials have taken 42 epochs: of 60, or of a share of .3, one seed of three fits.
        facts = {"best_value": value, "num_epochs_trained": 14, "end_reason": "completed"}
        study.finish(number, "COMPLETE", facts, value)
    images = SearchedImages(ImagesId("a", "b"), {"val": 100}, None)
    notes, resources = Notes(), TrialResources(cpus=1, gpus=0, num_slots=2)
    for _ in range(2):
        compare_finalists(small, run, study, images, resources, notes)
        assert len(trained) == 3
        assert is_settled(small, study, study.trials())
    assert notes.texts == [
        f"{what} leaves room for 1 of retrain.seeds=3. All 3 finalists on 3 fresh seeds would "
        f"take 9 trainings of 4 epochs; for more of them, resume with a larger {larger}"
    ]
    assert not is_settled(raised, study, study.trials())
    compare_finalists(raised, run, study, images, resources, notes)
    assert len(trained) == len(set(trained)) == 9
    assert {seed for _, seed in trained} == {raised.train.seed + 1 + i for i in range(3)}
    assert is_settled(raised, study, study.trials())
    verdict = read_verdict(raised, study, study.trials())
    assert verdict is not None
    assert len(verdict.trainings) == 3


def test_finalists_go_on_from_the_epochs_that_the_driver_sees(
    search_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: dict[str, int] = {}

    def train_all(
        trainings: Sequence[Training], *_: Any
    ) -> Iterator[tuple[int, dict[str, Any] | None]]:
        for i, training in enumerate(trainings):
            known[training.folder.name] = training.num_epochs
            yield i, None

    monkeypatch.setattr(comparison, "retrain_all_on_cluster", train_all)
    config, _ = load_search_config(
        search_file, ("retrain={seeds: 1, max_share: null}", "study.num_trials=2")
    )
    run = RunFolder(tmp_path / "run")
    run.make()
    study = create_study(run.storage_url(config), config)
    for value in (0.5, 0.9):
        number = study.ask().number
        study.report(number, {1: value})
        study.finish(number, "COMPLETE", {"end_reason": "completed"}, value)
    first = training_name(0, retrain_config(config, study.trials()[0].params))
    (run.retraining / first).mkdir(parents=True)
    (run.retraining / first / "epochs.csv").write_text("epoch,val_top1\n1,0.5\n2,0.5\n")
    images = SearchedImages(ImagesId("a", "b"), {"val": 100}, None)
    compare_finalists(config, run, study, images, TrialResources(1, 0, 2), Notes())
    assert known.pop(first) == 2
    assert list(known.values()) == [0]


class FakeCluster:
    """Stands for the trainings on Ray: each leaves its files, and tells one epoch."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.trained: list[tuple[str, bool]] = []  # name, and whether it had a teacher
        self.dies_after: int | None = None
        monkeypatch.setattr(comparison, "retrain_all_on_cluster", self.train)

    def train(
        self, trainings: Sequence[Training], *_: Any
    ) -> Iterator[tuple[int, dict[str, Any] | None]]:
        for i, training in enumerate(trainings):
            if self.dies_after is not None and len(self.trained) == self.dies_after:
                raise KeyboardInterrupt
            training.folder.mkdir(parents=True, exist_ok=True)
            for name in ("best.safetensors", "last.safetensors", "epochs.csv"):
                (training.folder / name).write_text("")
            for epoch in range(1, 5):
                Attempts(training.folder).note(epoch)
            self.trained.append((training.folder.name, training.config.distillation.is_used))
            yield i, {"epoch": 1, "seconds": 1.0, "val_top1": 0.5}
            yield i, None


def search_of(
    search_file: Path, folder: Path, *settings: str
) -> tuple[SearchConfig, RunFolder, SearchStudy]:
    """A run whose default configuration is its only trial, with its search file."""
    config, _ = load_search_config(search_file, ("study.num_trials=1", *settings))
    run = RunFolder(folder)
    run.make()
    study = create_study(run.storage_url(config), config)
    study.report(study.ask().number, {1: 0.5})
    facts = {"best_value": 0.5, "num_epochs_trained": 4, "end_reason": "completed"}
    study.finish(0, "COMPLETE", facts, 0.5)
    return config, run, study


IMAGES = SearchedImages(ImagesId("a", "b"), {"val": 100}, None)


def compare(config: SearchConfig, run: RunFolder, study: SearchStudy) -> list[str]:
    notes = Notes()
    compare_finalists(config, run, study, IMAGES, TrialResources(1, 0, 2), notes)
    return notes.texts


def test_members_of_an_ensemble_keep_their_best_weights_and_nothing_else(
    search_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = FakeCluster(monkeypatch)
    settings = ("retrain={seeds: 3, top_k: 1, deliver: ensemble, max_share: null}",)
    config, run, study = search_of(search_file, tmp_path / "run", *settings)
    compare(config, run, study)
    assert len(cluster.trained) == 3
    first, *others = [run.retraining / name for name, _ in cluster.trained]
    assert (first / "last.safetensors").exists()
    assert [[path.name for path in other.iterdir()] for other in others] == [
        ["best.safetensors"]
    ] * 2


def test_a_soup_that_is_asked_for_later_trains_again_what_the_delivery_removed(
    search_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = FakeCluster(monkeypatch)
    settings = ("retrain={seeds: 3, top_k: 1, deliver: ensemble, max_share: null}",)
    config, run, study = search_of(search_file, tmp_path / "run", *settings)
    compare(config, run, study)
    before = study.metadata.fresh_trainings
    shutil.rmtree(run.retraining)
    winner = retrain_config(config, study.trials()[0].params)
    run.best.mkdir()
    (run.best / "config.yaml").write_text(winner.model_dump_json())
    (run.best / "export.json").write_text("{}")
    (run.best / "metrics.json").write_text('{"combination": {"asked": "ensemble"}}')
    compare(config, run, study)
    assert len(cluster.trained) == 3  # it is there as it was asked for
    asked = config.retrain.model_copy(update={"deliver": "soup"})
    compare(config.model_copy(update={"retrain": asked}), run, study)
    assert [name for name, _ in cluster.trained[3:]] == [name for name, _ in cluster.trained[1:3]]
    assert study.metadata.fresh_trainings == before
    assert [one["num_epochs"] for one in study.metadata.retrainings] == [4, 4]


def test_a_soup_has_to_do_without_what_the_budget_cannot_train_again(
    search_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = FakeCluster(monkeypatch)
    settings = (
        "retrain={seeds: 3, top_k: 1, deliver: soup, max_share: null}", "budget.total_epochs=28",
    )  # fmt: skip
    config, run, study = search_of(search_file, tmp_path / "run", *settings)
    compare(config, run, study)
    study.metadata.add_retraining(0, 18, 1.0, 1.0)
    shutil.rmtree(run.retraining)
    run.best.mkdir()
    (run.best / "export.json").write_text("{}")
    assert compare(config, run, study) == [
        "the budget leaves no room to train 2 models again, which an earlier delivery has "
        "removed, for soup"
    ]
    assert len(cluster.trained) == 3


def test_a_search_killed_within_the_trainings_without_a_teacher_goes_on_with_them(
    search_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with a budget, which may have had no room for them."""
    cluster = FakeCluster(monkeypatch)
    monkeypatch.setattr(comparison, "teachers_of", lambda *_: ())
    settings = (
        "retrain={seeds: 2, top_k: 1, max_share: null}", "budget.total_epochs=100",
        f"train.distillation.teacher={tmp_path}",
    )  # fmt: skip
    config, run, study = search_of(search_file, tmp_path / "run", *settings)
    cluster.dies_after = 3
    with pytest.raises(KeyboardInterrupt):
        compare(config, run, study)
    assert not is_settled(config, study, study.trials())
    cluster.dies_after = None
    assert compare(config, run, study) == []
    assert [had_teacher for _, had_teacher in cluster.trained] == [True, True, False, False]
    assert is_settled(config, study, study.trials())


def test_trainings_without_a_teacher_wait_for_a_raised_budget(
    search_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = FakeCluster(monkeypatch)
    monkeypatch.setattr(comparison, "teachers_of", lambda *_: ())
    settings = (
        "retrain={seeds: 2, top_k: 1, max_share: null}",
        f"train.distillation.teacher={tmp_path}",
    )
    small, run, study = search_of(
        search_file, tmp_path / "run", *settings, "budget.total_epochs=28"
    )
    study.metadata.add_retraining(0, 12, 1.0, 1.0)
    assert compare(small, run, study) == [
        "the budget leaves no room to train the winner without its teacher"
    ]
    assert is_settled(small, study, study.trials())
    raised, _ = load_search_config(
        search_file, ("study.num_trials=1", *settings, "budget.total_epochs=280")
    )
    assert not is_settled(raised, study, study.trials())
    assert compare(raised, run, study) == []
    assert len(cluster.trained) == 4
    assert is_settled(raised, study, study.trials())
