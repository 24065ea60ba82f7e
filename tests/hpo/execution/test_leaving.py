"""Trainings that are told to end within an epoch: they are saved there, and counted once."""

import csv
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hpo.execution.attempts import Attempts
from hpo.execution.retrain import retrain_epochs
from hpo.execution.training import Training
from hpo.execution.worker import (
    REPORT,
    SETTINGS,
    UNDER_WAY,
    WORN_OUT,
    TrialTask,
    TrialWorker,
    WorkerSettings,
    trial_folder,
)
from hpo.study.trial import TrialReport
from sgformer.config import TrainConfig
from sgformer.cpus import usable_cpus
from sgformer.errors import DiskFullError
from sgformer.training.checkpoint import Saving
from sgformer.training.checkpoint_file import load_checkpoint

WITHIN = "within_epoch.safetensors"
Task = Callable[[int], TrialTask]


@pytest.fixture(autouse=True)
def _own_handler() -> Iterator[None]:
    """Puts the handler of SIGTERM back that a worker sets until its process ends."""
    former = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, former)


@pytest.fixture(autouse=True)
def _short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step of a worker is a single part of an epoch, as on a model whose steps take long."""
    monkeypatch.setattr("hpo.execution.saver.SECONDS_OF_A_PART", 0.0)


@pytest.fixture
def make_task(train_config: TrainConfig, tmp_path: Path) -> Task:
    def make(number: int) -> TrialTask:
        return TrialTask(number, Training(train_config, trial_folder(tmp_path, number)))

    return make


def worker(task: TrialTask) -> TrialWorker:
    started = TrialWorker({SETTINGS: WorkerSettings(1, task.training.config.data)})
    started.step()
    started.assign(task)
    return started


def run(trainable: TrialWorker) -> list[TrialReport]:
    """Steps the worker to the trial's end; returns its reports."""
    reports: list[TrialReport] = []
    while not reports or reports[-1].end_reason is None:
        report = trainable.step()[REPORT]
        reports += [report] if report is not None else []
    return reports


def losses(reports: list[TrialReport]) -> dict[int, tuple[float, float]]:
    rows: list[dict[str, Any]] = [row for report in reports for row in report.epochs]
    return {row["epoch"]: (row["train_loss"], row["val_loss"]) for row in rows}


def entries(task: TrialTask) -> list[str]:
    with Attempts(task.training.folder).path.open() as file:
        return [row["epoch"] for row in csv.DictReader(file)]


def same_weights(task: TrialTask, other: TrialTask) -> bool:
    (tensors, _), (others, _) = (
        load_checkpoint(t.training.folder / "last.safetensors") for t in (task, other)
    )
    return all(torch.equal(tensors[name], others[name]) for name in others)


def test_a_worker_that_is_stopped_within_an_epoch_goes_on_there(make_task: Task) -> None:
    whole = run(worker(make_task(0)))
    first = worker(make_task(1))
    told = []
    for _ in range(8):  # an epoch has three steps and two batches of val; then it is told
        result = first.step()
        told += [] if result.get(UNDER_WAY) else [result[REPORT]]
    first.stop()
    assert (make_task(1).training.folder / WITHIN).exists()
    assert [report.epochs[0]["epoch"] for report in told] == [1]
    resumed = run(worker(make_task(1)))
    assert [[row["epoch"] for row in report.epochs] for report in resumed] == [[1], [2], [3]]
    assert losses(resumed) == losses(whole)
    assert same_weights(make_task(1), make_task(0))
    assert [entry.partition(".")[0] for entry in entries(make_task(1))] == ["1", "2", "2", "3"]
    assert [report.facts["num_epochs_trained"] for report in resumed] == [2, 2, 3]
    assert not (make_task(1).training.folder / WITHIN).exists()


def test_an_epoch_that_is_lost_after_it_was_left_counts_twice(make_task: Task) -> None:
    first = worker(make_task(0))
    first.step()
    first.stop()
    for _ in range(2):  # each dies without a word after it went on
        lost = worker(make_task(0))
        lost.step()
        lost._end()
    assert entries(make_task(0)) == ["1", "1.1", "1"]
    assert run(worker(make_task(0)))[-1].facts["num_epochs_trained"] == 5  # 1, 1, 1, 2, 3


def test_sigterm_saves_the_training_and_ends_the_worker(make_task: Task) -> None:
    trainable = worker(make_task(0))
    trainable.step()
    os.kill(os.getpid(), signal.SIGTERM)
    left = trainable.step()
    assert (left[REPORT].number, left[REPORT].end_reason) == (0, "left")
    assert left[WORN_OUT]  # it gets no other trial
    with pytest.raises(SystemExit):
        trainable.step()
    _, metadata = load_checkpoint(make_task(0).training.folder / WITHIN)
    assert len(metadata["within_epoch"]["losses"]) == 1
    with pytest.raises(SystemExit):  # a second one ends the process at once
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_worker_that_has_to_leave_saves_its_trial_and_gives_it_back(make_task: Task) -> None:
    trainable = worker(make_task(0))
    trainable.step()
    trainable.leave()
    left = trainable.step()
    assert (left[REPORT].number, left[REPORT].end_reason) == (0, "left")
    _, metadata = load_checkpoint(make_task(0).training.folder / WITHIN)
    assert len(metadata["within_epoch"]["losses"]) == 1
    assert not left[WORN_OUT]  # it made way for a larger trial, and may get another
    trainable.assign(replace(make_task(1), num_threads=2))
    assert trainable.step()[REPORT] is None
    assert torch.get_num_threads() == min(2, usable_cpus())
    trainable.stop()


def test_a_stop_on_a_full_disk_leaves_the_last_epoch(
    make_task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise DiskFullError("no space left")

    monkeypatch.setattr("sgformer.training.checkpoint.save_within_epoch", full)
    trainable = worker(make_task(0))
    trainable.step()
    trainable.stop()
    assert not (make_task(0).training.folder / WITHIN).exists()
    assert len(run(worker(make_task(0)))) == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_a_retraining_within_its_epoch(
    train_config: TrainConfig, tmp_path: Path, number: signal.Signals
) -> None:
    folders = [tmp_path / "run" / "retraining" / name for name in "ab"]
    expected = [row["train_loss"] for row in retrain_epochs(Training(train_config, folders[0]))]
    steps: list[int] = []

    def interrupt(module: torch.nn.Module, _inputs: object) -> None:
        if type(module).__name__ == "SGFormer" and module.training:
            steps.append(1)
            if len(steps) == 5:  # the second epoch's second step
                signal.raise_signal(number)

    handle = torch.nn.modules.module.register_module_forward_pre_hook(interrupt)
    training = Training(train_config, folders[1])
    try:
        rows = retrain_epochs(training)
        assert next(rows)["epoch"] == 1
        with pytest.raises(KeyboardInterrupt):
            next(rows)
        assert (folders[1] / WITHIN).exists()
        assert [row["train_loss"] for row in retrain_epochs(training)] == expected
        assert len(steps) == 9  # none was run twice
    finally:
        handle.remove()


class SlowDisk:
    """Lets an epoch's write go on only when it is told to, or fail."""

    def __init__(self) -> None:
        self.may_go_on, self.error = threading.Event(), None
        self.error: Exception | None
        self._write = Saving.write

    def write(self, saving: Saving, folder: Path) -> None:
        self.may_go_on.wait(60)
        if self.error is not None:
            raise self.error
        self._write(saving, folder)


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowDisk]:
    disk = SlowDisk()
    monkeypatch.setattr(Saving, "write", lambda saving, folder: disk.write(saving, folder))
    yield disk
    disk.may_go_on.set()


def parts_until(trainable: TrialWorker, num: int) -> list[dict[str, Any]]:
    return [trainable.step() for _ in range(num)]


def next_report(trainable: TrialWorker) -> TrialReport:
    while (result := trainable.step()).get(UNDER_WAY):
        pass
    report: TrialReport = result[REPORT]
    return report


def test_an_epoch_is_told_when_its_checkpoint_is_durable_and_training_goes_on(
    make_task: Task, slow_disk: SlowDisk
) -> None:
    trainable, task = worker(make_task(0)), make_task(0)
    results = parts_until(trainable, 8)  # the first epoch, and two steps of the second
    assert all(result.get(UNDER_WAY) for result in results)
    assert not (task.training.folder / "last.safetensors").exists()
    assert entries(task) == ["1"]  # the second epoch, which is trained on trust, does not count
    slow_disk.may_go_on.set()
    reports = run(trainable)
    assert [[row["epoch"] for row in report.epochs] for report in reports] == [[1], [2], [3]]
    assert reports[0].facts["num_epochs_trained"] == 1
    assert entries(task) == ["1", "2", "3"]


def test_a_trial_that_is_paused_on_a_slow_disk_goes_on_from_what_was_told(
    make_task: Task, slow_disk: SlowDisk
) -> None:
    trainable = worker(make_task(0))
    parts_until(trainable, 7)
    slow_disk.may_go_on.set()
    assert next_report(trainable).epochs[0]["epoch"] == 1
    trainable.assign(make_task(1))  # the scheduler pauses trial 0
    whole = run(trainable)
    assert not (make_task(0).training.folder / WITHIN).exists()
    trainable.assign(make_task(0))
    assert losses(run(trainable)) == losses(whole)
    assert same_weights(make_task(0), make_task(1))
    assert entries(make_task(0)) == ["1", "2", "3"]


def test_a_disk_that_is_full_in_the_thread_is_told(make_task: Task, slow_disk: SlowDisk) -> None:
    slow_disk.error = DiskFullError("no space left on the disk of x")
    trainable = worker(make_task(0))
    parts_until(trainable, 6)
    slow_disk.may_go_on.set()
    (report,) = run(trainable)
    assert report.end_reason == "paused"
    assert report.error is not None
    assert (report.error.type, report.epochs) == ("DiskFullError", ())


def test_an_epoch_that_ends_before_the_write_of_the_one_before_waits(
    make_task: Task, slow_disk: SlowDisk
) -> None:
    trainable = worker(make_task(0))
    parts_until(trainable, 11)  # the second epoch ends with the next part
    threading.Timer(0.3, slow_disk.may_go_on.set).start()
    report = next_report(trainable)  # until then Ray can stop the worker
    assert slow_disk.may_go_on.is_set()
    assert [row["epoch"] for row in report.epochs] == [1]
    reports = run(trainable)
    assert [[row["epoch"] for row in report.epochs] for report in reports] == [[2], [3]]
    assert entries(make_task(0)) == ["1", "2", "3"]


def test_a_stop_saves_an_epoch_that_ended_while_the_one_before_was_written(
    make_task: Task, slow_disk: SlowDisk
) -> None:
    trainable = worker(make_task(0))
    parts_until(trainable, 11)
    threading.Timer(0.3, slow_disk.may_go_on.set).start()
    assert [row["epoch"] for row in next_report(trainable).epochs] == [1]
    trainable.stop()
    first = worker(make_task(0)).step()[REPORT]
    assert [row["epoch"] for row in first.epochs] == [1, 2]


def test_a_stop_before_the_write_has_ended_saves_both(
    make_task: Task, slow_disk: SlowDisk
) -> None:
    whole = make_task(1)
    slow_disk.may_go_on.set()
    expected = losses(run(worker(whole)))
    slow_disk.may_go_on.clear()
    trainable = worker(make_task(0))
    parts_until(trainable, 7)
    threading.Timer(0.3, slow_disk.may_go_on.set).start()
    trainable.stop()
    folder = make_task(0).training.folder
    assert {path.name for path in folder.glob("*.safetensors")} >= {"last.safetensors", WITHIN}
    resumed = run(worker(make_task(0)))
    assert losses(resumed) == expected
    assert entries(make_task(0)) == ["1", "2", "3"]
