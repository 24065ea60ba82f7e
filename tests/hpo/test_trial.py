"""The trainable in this process; with a real Ray it runs in tests/test_search_end_to_end.py."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpo.training import Training
from hpo.trial import REPORT, TASK, TrialTask, TrialTrainable, trial_folder
from hpo.trial_report import TrialReport
from sgformer.config import DataConfig, TrainConfig
from sgformer.decoded_images import load_image_data

Config = Callable[..., dict[str, Any]]


@pytest.fixture
def ray_config(train_config: TrainConfig, tmp_path: Path) -> Config:
    def make(number: int = 0, **update: Any) -> dict[str, Any]:
        train = train_config.model_copy(update=update)
        return {TASK: TrialTask(number, Training(train, trial_folder(tmp_path, number)), 1)}

    return make


def step(trainable: TrialTrainable) -> TrialReport:
    report: TrialReport = trainable.step()[REPORT]
    return report


def run(trainable: TrialTrainable) -> list[TrialReport]:
    """Reports until one says that the trial ended."""
    reports = [step(trainable)]
    while reports[-1].end_reason is None:
        reports.append(step(trainable))
    return reports


def test_each_step_reports_an_epoch_and_the_last_why_it_ended(ray_config: Config) -> None:
    reports = run(TrialTrainable(ray_config()))
    assert [[row["epoch"] for row in report.epochs] for report in reports] == [[1], [2], [3]]
    assert [report.end_reason for report in reports] == [None, None, "completed"]
    assert reports[-1].facts["num_parameters"] == 119_800


def test_a_worker_serves_one_trial_after_another(ray_config: Config, tmp_path: Path) -> None:
    trainable = TrialTrainable(ray_config(0))
    step(trainable)
    assert trainable.reset(ray_config(1, seed=1))
    assert [report.number for report in run(trainable)] == [1, 1, 1]
    assert (trial_folder(tmp_path, 1) / "best.safetensors").exists()


def test_a_reused_worker_trains_as_a_fresh_one(ray_config: Config, tmp_path: Path) -> None:
    used = TrialTrainable(ray_config(0, seed=3))
    run(used)
    used.reset(ray_config(1))
    fresh = TrialTrainable(ray_config(2))
    losses = [
        [row["train_loss"] for report in run(trainable) for row in report.epochs]
        for trainable in (used, fresh)
    ]
    assert losses[0] == losses[1]


def test_an_interrupted_trial_goes_on_and_tells_its_whole_curve(ray_config: Config) -> None:
    first = TrialTrainable(ray_config())
    told = [step(first), step(first)]
    (resumed,) = run(TrialTrainable(ray_config()))
    assert [row["epoch"] for row in resumed.epochs] == [1, 2, 3]
    assert resumed.epochs[:2] == tuple(row for report in told for row in report.epochs)
    assert resumed.end_reason == "completed"


def test_a_trial_whose_last_report_was_lost_reports_it_again(ray_config: Config) -> None:
    run(TrialTrainable(ray_config()))
    report = step(TrialTrainable(ray_config()))
    assert [row["epoch"] for row in report.epochs] == [1, 2, 3]
    assert report.end_reason == "completed"


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
        reports[cache] = step(TrialTrainable({TASK: TrialTask(number, training, 1)}))
    assert reports["driver"].end_reason == "completed"
    error = reports["another node"].error
    assert error is not None
    assert (error.type, "have changed since the search began" in error.message) == (
        "DataError",
        True,
    )


def test_what_goes_wrong_is_told_and_the_worker_goes_on(
    ray_config: Config, tmp_path: Path
) -> None:
    broken = trial_folder(tmp_path, 0) / "last.safetensors"
    broken.parent.mkdir(parents=True)
    broken.write_text("none")
    trainable = TrialTrainable(ray_config(0))
    report = step(trainable)
    assert report.end_reason == "failed"
    assert report.error is not None
    assert report.error.type == "CheckpointError"
    assert "last.safetensors" in report.error.message
    assert "Traceback" in report.error.traceback
    trainable.reset(ray_config(1))
    assert run(trainable)[-1].end_reason == "completed"
