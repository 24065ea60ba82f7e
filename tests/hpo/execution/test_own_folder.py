"""Tests of trainings whose checkpoints are in a store; whole clusters: the end-to-end tests."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import timm
from safetensors.torch import save_file

import sgformer.model.sizes  # noqa: F401  registers SG-Former's models with timm
from hpo.config.loading import load_search_config
from hpo.execution.own_folder import own_folder
from hpo.execution.saver import Progress
from hpo.execution.training import Training, leave, run_training
from hpo.execution.worker import (
    REPORT,
    SETTINGS,
    UNDER_WAY,
    TrialTask,
    TrialWorker,
    WorkerSettings,
)
from hpo.run_folder import RunFolder
from hpo.run_store import RunStore, claim_store, store_of
from hpo.run_weights import keep_weights, weights_of
from hpo.stored_training import StoredTraining
from sgformer.config import TrainConfig
from sgformer.errors import CheckpointError


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """The driver's run folder."""
    folder = RunFolder(tmp_path / "runs" / "tiny")
    folder.make()
    return folder


@pytest.fixture
def store(search_file: Path, run: RunFolder, tmp_path: Path) -> RunStore:
    url = (tmp_path / "checkpoints").as_uri()
    config, _ = load_search_config(search_file, [f"study.checkpoint_to={url}"])
    claim_store(config, run)
    found = store_of(config, run)
    assert found is not None
    return found


@pytest.fixture
def training(train_config: TrainConfig, store: RunStore) -> Training:
    """A trial of three epochs, whose folder as the driver has it no node sees."""
    return Training(train_config, Path("/proc/none/trials/0"), mark=store.mark, store=store)


def on_node(training: Training, place: Path) -> Training:
    """The training as it runs on a node whose local disk is this folder."""
    assert training.store is not None
    return replace(training, store=replace(training.store, cache_dir=place))


def train(training: Training, num_epochs: int) -> list[Progress]:
    """Trains some epochs, as before an interruption."""
    epochs = run_training(training)
    told = [next(filter(None, epochs)) for _ in range(num_epochs)]
    epochs.close()
    return told


def rows(told: list[Progress]) -> list[tuple[object, ...]]:
    """What does not depend on the time that an epoch takes."""
    return [(r["epoch"], r["train_loss"], r["val_loss"]) for p in told for r in p.epochs]


def left_on(place: Path) -> list[str]:
    return [path.name for path in (place / "trainings").iterdir() if path.is_dir()]


def test_a_training_goes_on_from_the_store_on_another_node(
    training: Training, train_config: TrainConfig, tmp_path: Path
) -> None:
    first, second = tmp_path / "node1", tmp_path / "node2"
    told = train(on_node(training, first), 2)
    assert training.with_known_epochs().num_epochs == 2
    resumed, last = filter(None, run_training(on_node(replace(training, num_epochs=2), second)))
    assert rows([resumed]) == rows(told)
    unbroken = Training(train_config, tmp_path / "unbroken" / "trials" / "0")
    unbroken.folder.parent.parent.mkdir()
    assert rows([resumed, last]) == rows(train(unbroken, 3))
    assert last.end_reason == "completed"
    assert last.facts["num_epochs_trained"] == training.num_begun() == 3
    assert last.facts["checkpoint"].endswith("/checkpoints/tiny/trials/0")
    assert left_on(first) == left_on(second) == []


def test_a_training_that_is_left_goes_on_within_its_epoch_elsewhere(
    training: Training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpo.execution.saver.SECONDS_OF_A_PART", 0.0)
    epochs = run_training(on_node(training, tmp_path / "node1"))
    next(filter(None, epochs))
    assert next(epochs) is None  # within the second epoch
    leave(epochs)
    list(run_training(on_node(training, tmp_path / "node2")))
    assert training.store is not None
    attempts = training.store.open(training.name).attempts().splitlines()
    assert [line.rpartition(",")[2] for line in attempts[1:]] == ["1", "2", "2.1", "3"]


def test_a_checkpoint_of_an_earlier_epoch_is_refused_by_its_url(
    training: Training, tmp_path: Path
) -> None:
    train(training, 1)
    with pytest.raises(CheckpointError) as refused:
        train(on_node(replace(training, num_epochs=2), tmp_path / "node2"), 1)
    said = str(refused.value)
    assert said.startswith(f"the checkpoint in {tmp_path.as_uri()}/checkpoints/tiny/trials/0 on ")
    assert "is of epoch 1 and not of 2" in said
    assert "all nodes must use the same store (study.checkpoint_to)" in said


def test_a_checkpoint_of_another_configuration_is_named_by_its_url(training: Training) -> None:
    train(training, 1)
    other = training.config.model_copy(update={"seed": 7})
    with pytest.raises(CheckpointError, match=r"/checkpoints/tiny/trials/0/last\.\S+ belongs to"):
        train(replace(training, config=other), 1)


KILLED = (
    "import os, signal, sys, pickle\n"
    "from hpo.execution.own_folder import own_folder\n"
    "with own_folder(pickle.load(sys.stdin.buffer), 'trials/0'):\n"
    "    os.kill(os.getpid(), signal.SIGKILL)\n"
)


def test_what_a_killed_process_leaves_on_its_node_is_removed_by_the_next(
    store: RunStore, tmp_path: Path
) -> None:
    import pickle

    own = replace(store, cache_dir=tmp_path / "node")
    killed = [sys.executable, "-c", KILLED]
    subprocess.run(killed, input=pickle.dumps(own), check=False, timeout=100)
    (left,) = left_on(tmp_path / "node")
    with own_folder(own, "trials/1") as one, own_folder(own, "trials/2") as other:
        assert sorted(left_on(tmp_path / "node")) == sorted([one.path.name, other.path.name])
    assert left not in left_on(tmp_path / "node")


def test_weights_to_start_from_come_from_the_store(
    training: Training, run: RunFolder, search_file: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source.safetensors"
    tensors = timm.create_model("sg_former_pico", num_classes=10).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, source)
    config, _ = load_search_config(search_file, [f"train.model.checkpoint={source}"])
    keep_weights(config, run, lambda _: None)
    assert training.store is not None
    for _ in range(2):  # a resumed search sends them no second time
        training.store.send_weights(run)
    weights = weights_of(run, config.train.model)
    assert weights is not None
    weights.path.rename(tmp_path / "the driver's own.safetensors")
    model = training.config.model.model_copy(update={"checkpoint": source})
    train_config = training.config.model_copy(update={"model": model})
    (told,) = train(replace(training, config=train_config, weights=weights), 1)
    assert "source.safetensors" in told.facts["weights"]


def test_a_trial_whose_store_is_away_waits_for_a_resume(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpo.stored_training.PATIENCE_SECONDS", 0.0)
    settings = WorkerSettings(1, training.config.data, mark=training.mark, store=training.store)
    worker = TrialWorker({SETTINGS: settings})
    worker.step()
    worker.assign(TrialTask(0, training))
    save = StoredTraining.save

    def once(self: StoredTraining, folder: Path) -> None:
        if (folder / "previous.safetensors").exists():
            self._patiently(lambda: 1 / 0)
        save(self, folder)

    monkeypatch.setattr(StoredTraining, "save", once)
    while (report := worker.step()[REPORT]) is None or report.end_reason is None:
        pass
    assert report.end_reason == "paused"
    assert report.error is not None
    assert report.error.type == "StoreError"
    assert "could not be reached for 0 seconds: division by zero" in report.error.message
    monkeypatch.setattr(StoredTraining, "save", save)
    worker.assign(TrialTask(0, replace(training, num_epochs=1)))
    reports = []
    while not reports or reports[-1].end_reason is None:
        if not (result := worker.step()).get(UNDER_WAY):
            reports.append(result[REPORT])
    assert reports[-1].end_reason == "completed"
