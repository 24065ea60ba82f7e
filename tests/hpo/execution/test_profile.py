"""Tests of what the trainings of a search cost, measured on a CPU in a part of a second each."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hpo.config.loading import load_search_config
from hpo.config.schema import SearchConfig
from hpo.config.search_space import apply_params
from hpo.errors import RunError
from hpo.execution import profile
from hpo.execution.cluster import TrialResources, connected
from hpo.execution.profile import (
    COSTLY,
    NUM_IMAGES,
    Cost,
    Profile,
    architecture_name,
    architectures,
    measured_on_cluster,
    profiled,
)
from sgformer.data.few_images import few_images
from sgformer.data.image_folder import read_image_folder
from sgformer.errors import DataError, OutOfMemoryError

ONE_CPU = TrialResources(cpus=1, gpus=0.0, num_slots=2)
TWO_MODELS = "space.model.name={type: categorical, choices: [sg_former_pico, sg_former_nano]}"
BATCHES = "space.optimizer.batch_size={type: int, low: 4, high: 64}"


@pytest.fixture
def load(search_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(profile, "SECONDS_OF_STEPS", 0.1)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    cache = f"train.data.cache_dir={tmp_path / 'cache'}"
    return lambda *overrides: load_search_config(search_file, [cache, *overrides])[0]


def costs_of(config: SearchConfig, resources: TrialResources = ONE_CPU) -> tuple[Cost, ...]:
    return tuple(profiled(config, read_image_folder(config.train.data), resources, None))


def cost_of(config: SearchConfig, seconds: float, **settings: Any) -> Cost:
    values = architectures(config)[0] | {k.replace("__", "."): v for k, v in settings.items()}
    return Cost(values, seconds, 10**9, "cpu of here", 20)


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        ([], ["sg_former_pico at 32 pixels, batches of 20"]),
        (
            [TWO_MODELS],
            [
                "sg_former_pico at 32 pixels, batches of 20",
                "sg_former_nano at 32 pixels, batches of 20",
            ],
        ),
        (
            [BATCHES],  # of a long range, both ends and the middle
            [f"sg_former_pico at 32 pixels, batches of {size}" for size in (4, 34, 64)],
        ),
        (
            [TWO_MODELS, "space.freeze={type: categorical, choices: [none, backbone], "
             "when: {model.name: [sg_former_nano]}}"],
            [
                "sg_former_pico at 32 pixels, batches of 20, freeze none",
                "sg_former_nano at 32 pixels, batches of 20, freeze none",
                "sg_former_nano at 32 pixels, batches of 20, freeze backbone",
            ],
        ),
        (
            ["train.max_epochs=8", "train.unfreeze_epoch=3", "train.freeze=backbone",
             "space.freeze={type: categorical, choices: [stages_1, backbone]}"],
            ["sg_former_pico at 32 pixels, batches of 20, freeze none"],
        ),
        (["space.label_smoothing={type: float, low: 0, high: 0.2}"],
         ["sg_former_pico at 32 pixels, batches of 20"]),
    ],
)  # fmt: skip
def test_only_what_changes_the_cost_is_measured(
    load: Any, overrides: list[str], names: list[str]
) -> None:
    config = load(*overrides)
    found = [architecture_name(one, config.space) for one in architectures(config)]
    assert found == names


def test_each_architecture_is_measured_and_nothing_is_left(load: Any, tmp_path: Path) -> None:
    config, num_threads = load(TWO_MODELS), torch.get_num_threads()
    costs = costs_of(config)
    assert [cost.settings["model.name"] for cost in costs] == ["sg_former_pico", "sg_former_nano"]
    for cost in costs:
        assert cost.epoch_seconds > 0
        assert cost.memory_bytes > 2**20
        assert (cost.micro_batch_size, cost.gpu_bytes, cost.problem) == (20, None, None)
        assert cost.device.startswith("cpu of ")
    assert not list((tmp_path / "temporary").glob("sgformer*"))
    assert not (tmp_path / "cache").exists()
    assert torch.get_num_threads() == num_threads


def test_one_of_two_processes_trains_its_share_of_a_batch(load: Any) -> None:
    group = TrialResources(cpus=1, gpus=0.0, num_slots=1, num_processes=2)
    (cost,) = costs_of(load(), group)
    assert cost.micro_batch_size == 10


def test_weights_to_start_from_are_not_loaded(load: Any) -> None:
    (cost,) = costs_of(load("train.model.checkpoint=/nowhere.safetensors"))
    assert cost.problem is None


def test_what_does_not_fit_is_said_and_the_others_are_measured(
    load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sgformer.training.trainer import Trainer

    config, parts = load(TWO_MODELS), Trainer.parts

    def scarce(self: Trainer) -> Iterator[Any]:  # in place of a GPU that is too small
        if self.config.model.name == "sg_former_pico":
            raise OutOfMemoryError("not even one image at a time fits")
        yield from parts(self)

    monkeypatch.setattr(Trainer, "parts", scarce)
    pico, nano = costs_of(config)
    assert pico.problem == "not even one image at a time fits"
    found = Profile([pico, nano])
    assert found.sound == (nano,)
    assert found.epoch_seconds(config.train) == nano.epoch_seconds
    with pytest.raises(RunError, match=r"no architecture of the space can be trained: not even"):
        Profile([pico])


@pytest.mark.parametrize(
    ("params", "seconds"),
    [
        ({"model.name": "sg_former_pico", "optimizer.batch_size": 5}, 1.0),
        ({"model.name": "sg_former_pico", "optimizer.batch_size": 60}, 2.0),
        ({"model.name": "sg_former_nano", "optimizer.batch_size": 5}, 4.0),
    ],
)
def test_a_training_takes_what_the_nearest_measured_one_takes(
    load: Any, params: dict[str, Any], seconds: float
) -> None:
    config = load(TWO_MODELS, BATCHES)
    known = Profile(
        [
            cost_of(config, 1.0, model__name="sg_former_pico", optimizer__batch_size=4),
            cost_of(config, 2.0, model__name="sg_former_pico", optimizer__batch_size=64),
            cost_of(config, 4.0, model__name="sg_former_nano", optimizer__batch_size=64),
        ]
    )
    assert list(known.sound[0].settings) == list(COSTLY)
    assert known.epoch_seconds(apply_params(config.train, params, "test")) == seconds


def test_an_epoch_has_all_steps_and_all_of_val(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # In place of a clock: a step takes 2 s, and an image of val 0.5 s.
    monkeypatch.setattr(profile, "_time_steps", lambda trainer, device: (2.0, None))
    seconds = 0.5 * 30  # 30 images of val fit into two batches of 20
    monkeypatch.setattr(profile, "_time_evaluation", lambda trainer, device: seconds)
    (whole,) = costs_of(load())
    assert whole.epoch_seconds == pytest.approx(60 // 20 * 2.0 + 30 * 0.5)
    (part,) = costs_of(load("train.epoch_images=40", "train.eval_images=10"))
    assert part.epoch_seconds == pytest.approx(40 // 20 * 2.0 + 10 * 0.5)
    assert not math.isnan(part.epoch_seconds)


def test_a_task_on_a_cluster_measures_with_a_trials_resources(load: Any, tmp_path: Path) -> None:
    config = load()
    few = few_images(read_image_folder(config.train.data), NUM_IMAGES)
    gone = replace(few, folder=replace(few.folder, root=tmp_path / "gone"))
    with connected(None):
        (cost,) = measured_on_cluster(config, few, ONE_CPU)
        with pytest.raises(DataError, match=r"none of \d+ train images of .*gone can be read"):
            list(measured_on_cluster(config, gone, ONE_CPU))
    assert cost.settings == architectures(config)[0]
    assert cost.epoch_seconds > 0
    assert not (tmp_path / "cache").exists()
