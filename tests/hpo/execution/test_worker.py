"""Tests of the worker in this process; tests/test_search_end_to_end.py runs it in a real Ray."""

import csv
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models.resnet import ResNet

from hpo.errors import ClusterError, WornOutError
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
from hpo.run_folder import RunFolder
from hpo.study.trial import TrialReport
from sgformer.config import TrainConfig
from sgformer.data.image_data import load_image_data
from sgformer.data_config import DataConfig
from sgformer.model.sg_former import SGFormer
from sgformer.training.device import held_bytes

MakeTask = Callable[..., TrialTask]


@pytest.fixture
def make_task(train_config: TrainConfig, tmp_path: Path) -> MakeTask:
    def make(number: int = 0, **update: Any) -> TrialTask:
        train = train_config.model_copy(update=update)
        return TrialTask(number, Training(train, trial_folder(tmp_path, number)))

    return make


@pytest.fixture(autouse=True)
def _own_handler() -> Iterator[None]:
    """Puts the handler of SIGTERM back that a worker sets until its process ends."""
    former = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, former)


def worker(task: TrialTask) -> TrialWorker:
    """A worker in this process to which the task is assigned."""
    started = TrialWorker({SETTINGS: WorkerSettings(1, task.training.config.data)})
    assert started.step()[REPORT] is None
    started.assign(task)
    return started


def result_of_epoch(trainable: TrialWorker) -> dict[str, Any]:
    """What an epoch tells Ray; on a slow machine it may take several of the worker's steps."""
    while (result := trainable.step()).get(UNDER_WAY):
        pass
    return result


def step(trainable: TrialWorker) -> TrialReport:
    report: TrialReport = result_of_epoch(trainable)[REPORT]
    return report


def run(trainable: TrialWorker) -> list[TrialReport]:
    """Steps the worker to the trial's end; returns its reports."""
    reports = [step(trainable)]
    while reports[-1].end_reason is None:
        reports.append(step(trainable))
    return reports


def test_each_step_reports_an_epoch_and_the_last_why_it_ended(make_task: MakeTask) -> None:
    reports = run(worker(make_task()))
    assert [[row["epoch"] for row in report.epochs] for report in reports] == [[1], [2], [3]]
    assert [report.end_reason for report in reports] == [None, None, "completed"]
    assert reports[-1].facts["num_parameters"] == 119_800


def test_a_worker_serves_one_trial_after_another(make_task: MakeTask, tmp_path: Path) -> None:
    trainable = worker(make_task(0))
    step(trainable)
    trainable.assign(make_task(1, seed=1))
    assert [report.number for report in run(trainable)] == [1, 1, 1]
    assert (trial_folder(tmp_path, 1) / "best.safetensors").exists()


def test_a_warm_worker_trains_as_a_cold_process_does(make_task: MakeTask) -> None:
    script = (
        "import sys, pickle, torch\n"
        "from hpo.execution.training import run_training\n"
        "torch.set_num_threads(1)\n"
        "training = pickle.loads(sys.stdin.buffer.read())\n"
        "reports = [progress for progress in run_training(training) if progress is not None]\n"
        "rows = [row for report in reports for row in report.epochs]\n"
        "print([(row['train_loss'], row['val_loss']) for row in rows])\n"
    )
    cold = subprocess.run(
        [sys.executable, "-c", script],
        input=pickle.dumps(make_task(0).training),
        check=True,
        capture_output=True,
    )
    warm = worker(make_task(1, seed=3))
    run(warm)
    warm.assign(make_task(2))
    rows = [row for report in run(warm) for row in report.epochs]
    losses = [(row["train_loss"], row["val_loss"]) for row in rows]
    assert repr(losses) == cold.stdout.decode().strip()


def test_an_interrupted_trial_goes_on_and_tells_its_whole_curve(make_task: MakeTask) -> None:
    first = worker(make_task())
    told = [step(first), step(first)]
    first.stop()
    resumed, last = run(worker(make_task()))
    assert resumed.epochs == tuple(row for report in told for row in report.epochs)
    assert resumed.end_reason is None  # a scheduler may stop the trial here, before it trains
    assert [row["epoch"] for row in last.epochs] == [3]
    assert last.end_reason == "completed"
    assert last.facts["num_epochs_trained"] == 3


def test_a_trial_whose_last_report_was_lost_reports_it_again(make_task: MakeTask) -> None:
    run(worker(make_task()))
    report = step(worker(make_task()))
    assert [row["epoch"] for row in report.epochs] == [1, 2, 3]
    assert report.end_reason == "completed"


def test_a_training_that_broke_and_whose_checkpoint_is_gone_does_not_start_over(
    make_task: MakeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpo.run_folder.SECONDS_UNTIL_SEEN", 0.0)
    trainable = worker(make_task())
    step(trainable)
    for path in trial_folder(tmp_path, 0).glob("*.safetensors"):
        path.unlink()
    monkeypatch.setattr(SGFormer, "forward", None)  # so the second epoch breaks
    report = step(trainable)
    assert report.error is not None
    assert (report.end_reason, report.error.type) == ("failed", "CheckpointError")


def test_a_worker_starts_only_where_it_sees_the_runs_folder(
    train_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpo.run_folder.SECONDS_UNTIL_SEEN", 0.0)
    mark = RunFolder(tmp_path).mark()
    settings = WorkerSettings(1, train_config.data, run_dir=tmp_path, mark=mark)
    assert TrialWorker({SETTINGS: settings}).step()[REPORT] is None
    with pytest.raises(ClusterError, match="is another run's"):
        TrialWorker({SETTINGS: replace(settings, mark="another")})


def test_images_that_changed_since_the_search_began_are_told(
    train_config: TrainConfig, own_image_folder: Path, tmp_path: Path
) -> None:
    values = train_config.data.model_dump()
    data = DataConfig(**values | {"data_dir": own_image_folder, "cache_dir": tmp_path / "driver"})
    images = load_image_data(data).images.id
    (own_image_folder / "train" / "0" / "0.png").unlink()
    reports = {}
    for number, cache in enumerate(("driver", "another node")):
        own = data.model_copy(update={"cache_dir": tmp_path / cache})
        train = train_config.model_copy(update={"data": own, "max_epochs": 1})
        training = Training(train, trial_folder(tmp_path, number), images)
        reports[cache] = step(worker(TrialTask(number, training)))
    assert reports["driver"].end_reason == "completed"
    error = reports["another node"].error
    assert error is not None
    assert (error.type, "have changed since the search began" in error.message) == (
        "DataError",
        True,
    )


class Breaking:
    """A hook that raises in `num_failures` training forwards, after the first `after` ones."""

    def __init__(self, num_failures: int, after: int) -> None:
        self.num_failures, self.after = num_failures, after

    def __call__(self, module: torch.nn.Module, _inputs: object) -> None:
        if isinstance(module, SGFormer) and module.training:
            self.after -= 1
            if self.after < 0 and self.num_failures > 0:
                self.num_failures -= 1
                raise RuntimeError("a cosmic ray")


@pytest.fixture
def break_training() -> Iterator[Callable[..., None]]:
    handles = []

    def start(num_failures: int, after: int = 4) -> None:
        hook = Breaking(num_failures, after)
        handles.append(torch.nn.modules.module.register_module_forward_pre_hook(hook))

    yield start
    for handle in handles:
        handle.remove()


def test_a_training_that_broke_is_tried_once_more_from_its_checkpoint(
    make_task: MakeTask, tmp_path: Path, break_training: Callable[..., None]
) -> None:
    break_training(1)  # in the second epoch; an epoch has three steps
    *_, last = run(worker(make_task()))
    assert last.end_reason == "completed"
    assert last.facts["retried_error"]["message"] == "a cosmic ray"
    attempts = list(csv.DictReader((trial_folder(tmp_path, 0) / "attempts.csv").open()))
    assert [int(row["epoch"]) for row in attempts] == [1, 2, 2, 3]
    assert last.facts["num_epochs_trained"] == 4


def test_a_training_that_breaks_twice_has_failed(
    make_task: MakeTask, break_training: Callable[..., None]
) -> None:
    break_training(2)
    *_, last = run(worker(make_task()))
    assert last.error is not None
    assert (last.end_reason, last.error.type) == ("failed", "RuntimeError")
    assert last.facts["num_epochs_trained"] == 3  # the second epoch twice
    assert "a cosmic ray" in last.error.traceback


def test_what_a_trial_ran_with_is_told(make_task: MakeTask) -> None:
    task = make_task()
    facts = run(worker(task))[-1].facts
    train = task.training.config
    assert TrainConfig.model_validate(facts["config"]) == train
    assert facts["config_fingerprint"] == train.fingerprint()
    assert facts["num_epochs_trained"] == 3
    assert facts["peak_memory_bytes"] > 50e6
    assert (facts["gpu"], facts["gpu_seconds"], facts["device"]) == (None, 0, "cpu")
    assert (facts["precision"], facts["channels_last"]) == ("float32", False)
    assert facts["seed"] == train.seed
    assert facts["images_per_second"] > 0


def test_a_trial_begins_with_the_micro_batch_of_the_last_of_its_architecture(
    make_task: MakeTask, train_config: TrainConfig
) -> None:
    sizes: list[int] = []

    def check(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if isinstance(module, SGFormer) and module.training:
            sizes.append(len(inputs[0]))
            if len(inputs[0]) > 5:
                raise MemoryError

    trainable = worker(make_task(0, max_epochs=1))
    handle = torch.nn.modules.module.register_module_forward_pre_hook(check)
    try:
        first = run(trainable)[-1]
        assert (sizes[:3], first.facts["micro_batch_size"]) == ([20, 10, 5], 5)
        sizes.clear()
        task = make_task(1, max_epochs=1, seed=1)
        trainable.assign(task)
        facts = run(trainable)[-1].facts
        assert facts["micro_batch_size"] == 5
        assert max(sizes) == 5
        assert TrainConfig.model_validate(facts["config"]) == task.training.config
        sizes.clear()
        smaller = train_config.optimizer.model_copy(update={"batch_size": 6})
        trainable.assign(make_task(2, max_epochs=1, optimizer=smaller))
        assert run(trainable)[-1].facts["micro_batch_size"] == 3
        assert sizes[0] == 6
    finally:
        handle.remove()


def test_a_trial_with_batch_norm_does_not_depend_on_the_trial_before(
    make_task: MakeTask, train_config: TrainConfig
) -> None:
    sizes: list[int] = []

    def check(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if isinstance(module, ResNet) and module.training:
            sizes.append(len(inputs[0]))
            if len(sizes) == 1:
                raise MemoryError

    model = train_config.model.model_copy(update={"name": "test_resnet"})
    trainable = worker(make_task(0, max_epochs=1, model=model))
    handle = torch.nn.modules.module.register_module_forward_pre_hook(check)
    try:
        assert run(trainable)[-1].facts["micro_batch_size"] == 10
        trainable.assign(make_task(1, max_epochs=1, model=model))
        assert run(trainable)[-1].facts["micro_batch_size"] == 20
    finally:
        handle.remove()


def test_a_share_of_a_gpu_limits_the_memory_of_a_trial_and_of_no_later_one(
    make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares: list[float] = []
    monkeypatch.setattr("sgformer.training.device.limit_memory", shares.append)
    trainable = worker(make_task(0, max_epochs=1))
    for number, share in enumerate((0.5, 1.0)):
        task = make_task(number, max_epochs=1)
        training = replace(task.training, num_gpus=share)
        trainable.assign(replace(task, training=training))
        assert run(trainable)[-1].end_reason == "completed"
    assert shares == [0.5, 1.0]


def test_what_goes_wrong_is_told_and_the_worker_goes_on(
    make_task: MakeTask, tmp_path: Path
) -> None:
    broken = trial_folder(tmp_path, 0) / "last.safetensors"
    broken.parent.mkdir(parents=True)
    broken.write_text("none")
    trainable = worker(make_task(0))
    report = step(trainable)
    assert report.end_reason == "failed"
    assert report.error is not None
    assert report.error.type == "CheckpointError"
    assert "last.safetensors" in report.error.message
    assert "Traceback" in report.error.traceback
    trainable.assign(make_task(1))
    assert run(trainable)[-1].end_reason == "completed"


def test_a_warm_worker_leaks_nothing_over_a_hundred_trials(make_task: MakeTask) -> None:
    trainable = worker(make_task(0, max_epochs=1))
    held = []
    for number in range(100):
        trainable.assign(make_task(number, max_epochs=1, seed=number))
        assert step(trainable).end_reason == "completed"
        held.append(held_bytes())
    assert held[-1] < 1.05 * held[4]


def test_a_warm_worker_whose_memory_grows_is_worn_out(
    make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpo.execution.worker.MOST_GROWTH", 1.0)
    monkeypatch.setattr("hpo.execution.worker.MOST_GROWTH_BYTES", 2**26)
    kept = []
    worn_out = []
    trainable = worker(make_task(0, max_epochs=1))
    for number in range(3):
        trainable.assign(make_task(number, max_epochs=1))
        kept.append(torch.ones(number * 2**23))  # memory that a trial leaks
        worn_out.append(result_of_epoch(trainable)[WORN_OUT])
    assert worn_out == [False, False, True]
    trainable.retire()
    with pytest.raises(WornOutError):
        trainable.step()


def test_a_warm_worker_is_worn_out_by_a_failure_and_not_by_an_end(
    make_task: MakeTask, break_training: Callable[..., None]
) -> None:
    trainable = worker(make_task(0, max_epochs=1))
    assert not result_of_epoch(trainable)[WORN_OUT]
    break_training(2, after=0)
    trainable.assign(make_task(1, max_epochs=1))
    assert result_of_epoch(trainable)[WORN_OUT]


def test_a_worker_is_warm_before_its_first_trial(train_config: TrainConfig) -> None:
    script = (
        "import sys, pickle\n"
        "from hpo.execution.worker import SETTINGS, TrialWorker, WorkerSettings\n"
        "from sgformer.data_config import DataConfig\n"
        "assert 'torch' not in sys.modules\n"
        "data = DataConfig.model_validate_json(sys.argv[1])\n"
        "TrialWorker({SETTINGS: WorkerSettings(1, data)})\n"
        "assert {'torch', 'timm', 'sgformer.training.trainer'} <= sys.modules.keys()\n"
        "from hpo.execution.searched_images import open_images\n"
        "assert open_images.cache_info().currsize == 1\n"
    )
    data = train_config.data.model_dump_json()
    subprocess.run([sys.executable, "-c", script, data], check=True)


def test_a_worker_starts_only_where_the_images_are(
    train_config: TrainConfig, tmp_path: Path
) -> None:
    data = train_config.data.model_copy(update={"data_dir": tmp_path / "none"})
    with pytest.raises(ClusterError, match=rf"the images {tmp_path}/none are not there on \S+;"):
        TrialWorker({SETTINGS: WorkerSettings(1, data)})
