"""Tests of groups of processes with a real Ray Train: two gloo processes on this machine."""

import contextlib
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import scarce_memory
from command_line import descendants
from two_processes import in_two_processes, resume_apart

from hpo.errors import ProcessDiedError
from hpo.execution.cluster import GroupResources
from hpo.execution.group_training import WarmGroup, run_group_training
from hpo.execution.training import Training, leave, run_training
from hpo.run_folder import MARK
from hpo.run_store import RunStore
from hpo.url_folder import open_url
from sgformer.config import TrainConfig
from sgformer.errors import CheckpointError, OutOfMemoryError
from sgformer.training.checkpoint_file import load_checkpoint

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
def test_a_warm_group_trains_one_training_after_another_as_new_groups_would(
    train_config: TrainConfig, tmp_path: Path
) -> None:
    config = train_config.model_copy(update={"max_epochs": 2})
    starts: list[list[int]] = []

    def note_start() -> None:
        starts.append(processes_of_groups())

    with contextlib.closing(WarmGroup()) as group:
        paused = group.run(training(config, tmp_path, "paused"), PAIR, note_start)
        first = next(filter(None, paused))
        paused.close()  # as the scheduler's pause does
        other = list(group.run(training(config, tmp_path, "other"), PAIR, note_start))
        again = Training(config, tmp_path / "paused" / "0")
        resumed = list(group.run(again, PAIR, note_start))
        assert starts == [starts[0]] * 3
        assert len(starts[0]) == 2
        os.kill(starts[0][1], signal.SIGKILL)
        last = training(config, tmp_path, "after")
        with pytest.raises(ProcessDiedError):
            list(group.run(last, PAIR))
        after = list(group.run(last, PAIR))
    assert processes_of_groups() == []
    told = [[row for said in filter(None, run) for row in said.epochs] for run in (other, after)]
    assert [row["train_loss"] for row in told[0]] == [row["train_loss"] for row in told[1]]
    epochs = [said.epochs[-1] for said in filter(None, resumed)]
    assert epochs[0]["train_loss"] == first.epochs[0]["train_loss"] == told[0][0]["train_loss"]
    assert epochs[-1]["train_loss"] == told[0][1]["train_loss"]


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
    workers = processes_of_groups()
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


@pytest.mark.usefixtures("started_ray")
def test_a_group_goes_on_from_a_store_of_checkpoints(
    train_config: TrainConfig, tmp_path: Path
) -> None:
    store = RunStore((tmp_path / "store").as_uri(), "a", tmp_path / "node")
    open_url(store.url).write_text(MARK, "a")
    stored = Training(train_config, Path("/proc/none/trials/0"), store=store)
    with contextlib.closing(run_group_training(stored, PAIR)) as epochs:
        next(filter(None, epochs))
    assert stored.with_known_epochs().num_epochs == 1
    resumed, *_, last = filter(None, run_group_training(stored.with_known_epochs(), PAIR))
    assert [row["epoch"] for row in resumed.epochs] == [1]
    assert (last.end_reason, last.facts["num_epochs_trained"]) == ("completed", 3)


def processes_of_groups() -> list[int]:
    """The processes of groups that this process's Ray has started."""
    commands = descendants(os.getpid())
    return sorted(pid for pid, command in commands.items() if "RayTrainWorker" in command)
