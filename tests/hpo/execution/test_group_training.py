"""Tests of groups of processes with a real Ray Train: two gloo processes on this machine."""

import contextlib
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import scarce_memory
from two_processes import in_two_processes, resume_apart

from hpo.errors import ProcessDiedError
from hpo.execution.cluster import GroupResources
from hpo.execution.group_training import run_group_training
from hpo.execution.training import Training, leave, run_training
from sgformer.config import TrainConfig
from sgformer.errors import CheckpointError, OutOfMemoryError
from sgformer.training.checkpoint import load_checkpoint

PAIR = GroupResources(num_processes=2, cpus=1, gpus=0)


@contextlib.contextmanager
def local_ray(**runtime_env: object) -> Iterator[None]:
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env=runtime_env or None,
    )
    try:
        yield
    finally:
        ray.shutdown()


@pytest.fixture(scope="module")
def started_ray() -> Iterator[None]:
    with local_ray():
        yield


def training(config: TrainConfig, tmp_path: Path, name: str) -> Training:
    folder = tmp_path / name / "0"
    folder.mkdir(parents=True)
    return Training(config, folder)


def test_a_group_without_memory_starts_again_with_half_the_micro_batch_while_it_can(
    train_config: TrainConfig, tmp_path: Path
) -> None:
    optimizer = train_config.optimizer.model_copy(update={"micro_batch_size": 10})
    config = train_config.model_copy(update={"optimizer": optimizer, "max_epochs": 1})
    support = str(Path(scarce_memory.__file__).parent)
    with local_ray(
        worker_process_setup_hook=scarce_memory.set_up, env_vars={"PYTHONPATH": support}
    ):
        (progress,) = filter(None, run_group_training(training(config, tmp_path, "group"), PAIR))
        resnet = config.model_copy(
            update={
                "model": config.model.model_copy(update={"name": "test_resnet"}),
                "optimizer": config.optimizer.model_copy(update={"micro_batch_size": 2}),
            }
        )
        with pytest.raises(OutOfMemoryError, match="not even 2 images at a time"):
            list(run_group_training(training(resnet, tmp_path, "resnet"), PAIR))
    assert progress.facts["micro_batch_size"] == 5
    assert progress.facts["config"]["optimizer"]["micro_batch_size"] == 10
    assert progress.end_reason == "completed"


@pytest.mark.usefixtures("started_ray")
def test_a_group_tells_what_one_process_would(train_config: TrainConfig, tmp_path: Path) -> None:
    alone = list(filter(None, run_training(training(train_config, tmp_path, "alone"))))
    interrupted = training(train_config, tmp_path, "group")
    epochs = run_group_training(interrupted, PAIR)
    first = next(filter(None, epochs))
    epochs.close()  # as a scheduler's stop does
    resumed = list(filter(None, run_group_training(interrupted, PAIR)))
    assert [[row["epoch"] for row in said.epochs] for said in resumed] == [[1], [2], [3]]
    assert resumed[0].epochs == first.epochs
    assert resumed[-1].end_reason == "completed"
    losses = [row["train_loss"] for said in resumed for row in said.epochs]
    expected = [row["train_loss"] for said in alone for row in said.epochs]
    assert losses == pytest.approx(expected, rel=1e-4)


def test_processes_that_see_different_checkpoints_do_not_train_together(
    train_config: TrainConfig, tmp_path: Path
) -> None:
    early, late = (training(train_config, tmp_path, name) for name in ("early", "late"))
    epochs = run_training(late)
    next(filter(None, epochs))
    shutil.copytree(late.folder, early.folder, dirs_exist_ok=True)
    next(filter(None, epochs))
    epochs.close()
    in_two_processes(resume_apart, train_config, (late.folder, early.folder))


@pytest.mark.usefixtures("started_ray")
def test_what_a_process_raises_is_raised(train_config: TrainConfig, tmp_path: Path) -> None:
    spoiled = training(train_config, tmp_path, "group")
    (spoiled.folder / "last.safetensors").write_text("none")
    with pytest.raises(CheckpointError, match=r"last\.safetensors") as caught:
        list(run_group_training(spoiled, PAIR))
    assert "in resume_progress" in caught.value.__notes__[0]  # the error's origin


@pytest.mark.usefixtures("started_ray")
def test_a_process_killed_in_an_epoch_ends_the_group(
    train_config: TrainConfig, tmp_path: Path
) -> None:
    optimizer = train_config.optimizer.model_copy(update={"batch_size": 4})
    config = train_config.model_copy(update={"optimizer": optimizer, "max_epochs": 99})
    epochs = run_group_training(training(config, tmp_path, "group"), PAIR)
    next(filter(None, epochs))
    listing = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True)
    workers = [
        int(line.split()[0]) for line in listing.stdout.splitlines() if "RayTrainWorker" in line
    ]
    assert len(workers) == 2
    threading.Timer(0.7, os.kill, (workers[0], signal.SIGKILL)).start()
    with pytest.raises(ProcessDiedError, match="a process of the group is gone"):
        list(epochs)


@pytest.mark.usefixtures("started_ray")
def test_a_group_that_is_ended_within_an_epoch_goes_on_there(
    train_config: TrainConfig, tmp_path: Path
) -> None:
    optimizer = train_config.optimizer.model_copy(update={"batch_size": 4})
    update = {"optimizer": optimizer, "max_epochs": 1, "epoch_images": 120}
    config = train_config.model_copy(update=update)
    expected = list(filter(None, run_training(training(config, tmp_path, "alone"))))
    group = training(config, tmp_path, "group")
    epochs = run_group_training(group, PAIR)
    while not (group.folder / "attempts.csv").exists():  # the processes start
        assert next(epochs) is None
    leave(epochs)  # they look for it after 20 of 30 steps
    _, metadata = load_checkpoint(group.folder / "within_epoch.safetensors")
    assert len(metadata["within_epoch"]["losses"]) == 20
    (said,) = filter(None, run_group_training(group, PAIR))
    assert [row["train_loss"] for row in said.epochs] == pytest.approx(
        [row["train_loss"] for row in expected[0].epochs], rel=1e-4
    )
    assert said.facts["num_epochs_trained"] == 1
