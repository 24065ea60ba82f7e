"""Tests of how a training resumes; the trainer itself is tested in tests/sgformer/training."""

import shutil
import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from hpo.errors import ClusterError
from hpo.execution.saver import Progress
from hpo.execution.training import Training, run_training
from hpo.run_folder import RunFolder
from hpo.stored_training import saved_epochs
from sgformer.config import TrainConfig
from sgformer.errors import CheckpointError


@pytest.fixture
def training(train_config: TrainConfig, tmp_path: Path) -> Training:
    """A training of three epochs in a run's folder."""
    return Training(train_config, tmp_path / "run" / "trials" / "0", mark=made_run(tmp_path))


def made_run(folder: Path) -> str:
    run = RunFolder(folder / "run")
    run.make()
    return run.mark()


def train(training: Training, num_epochs: int) -> list[Progress]:
    """Trains some epochs, as before an interruption."""
    epochs = run_training(training)
    told = [next(filter(None, epochs)) for _ in range(num_epochs)]
    epochs.close()
    return told


@pytest.fixture
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not seen is not waited for."""
    monkeypatch.setattr("hpo.run_folder.SECONDS_UNTIL_SEEN", 0.0)


@pytest.mark.usefixtures("_at_once")
@pytest.mark.parametrize("seen", [0, 1])
def test_a_training_of_which_a_later_epoch_is_known_does_not_start_over(
    training: Training, tmp_path: Path, seen: int
) -> None:
    train(training, 1)
    earlier = shutil.copytree(training.folder, tmp_path / "earlier")
    train(training, 2)
    shutil.rmtree(training.folder)
    if seen:
        earlier.rename(training.folder)
    with pytest.raises(CheckpointError) as caught:
        train(replace(training, num_epochs=2), 1)
    where = f"the checkpoint in {training.folder} on {socket.gethostname()}"
    said = str(caught.value)
    assert said.startswith(f"{where} is of epoch {seen} and not of 2; the training does not start")
    assert "all nodes must share the run folder (--output-dir)" in said


def test_a_checkpoint_that_is_seen_late_is_waited_for(training: Training) -> None:
    told = train(training, 2)
    last, unseen = (training.folder / name for name in ("last.safetensors", "unseen"))
    last.rename(unseen)
    threading.Timer(0.4, unseen.rename, (last,)).start()
    (resumed,) = train(replace(training, num_epochs=2), 1)
    assert resumed.epochs == tuple(row for progress in told for row in progress.epochs)


def test_a_training_whose_last_checkpoint_is_damaged_goes_on_from_the_one_before(
    training: Training,
) -> None:
    train(training, 2)
    (training.folder / "last.safetensors").write_text("cut")
    resumed, *_, last = filter(None, run_training(replace(training, num_epochs=2)))
    assert [row["epoch"] for row in resumed.epochs] == [1]
    assert "cannot read checkpoint" in last.facts["refused_checkpoints"][0]
    assert last.end_reason == "completed"


def test_what_a_model_loses_in_8_bit_integers_is_told_at_the_end_alone(
    training: Training,
) -> None:
    training = replace(training, int8_images=20)
    *earlier, last = filter(None, run_training(training))
    assert last.end_reason == "completed"
    drop = last.facts["int8_top1_drop"]
    assert -1 <= drop <= 1
    assert (drop * 20) % 1 == pytest.approx(0)
    assert last.epochs[-1]["int8_top1_drop"] == drop
    assert not any("int8_top1_drop" in progress.facts for progress in earlier)
    # A driver that died before it heard of the end asks again.
    (again,) = filter(None, run_training(replace(training, num_epochs=3)))
    assert again.facts["int8_top1_drop"] == drop
    (without,) = filter(None, run_training(replace(training, num_epochs=3, int8_images=None)))
    assert "int8_top1_drop" not in without.facts


def test_a_training_of_a_version_without_marks_is_resumed(training: Training) -> None:
    (training.folder.parent.parent / ".mark").unlink()
    train(replace(training, mark=None), 1)
    resumed = replace(training, mark=made_run(training.folder.parents[2]), num_epochs=1)
    assert [row["epoch"] for row in train(resumed, 1)[0].epochs] == [1]


@pytest.mark.usefixtures("_at_once")
def test_a_training_in_another_runs_folder_does_not_begin(training: Training) -> None:
    with pytest.raises(ClusterError, match="is another run's"):
        train(replace(training, mark="another"), 1)
    assert not training.folder.exists()


def test_the_epochs_that_a_folder_holds_are_counted(training: Training) -> None:
    assert saved_epochs(training.folder) == 0
    train(training, 2)
    assert saved_epochs(training.folder) == 2
