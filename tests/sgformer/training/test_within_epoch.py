"""Trainings that are left within an epoch, and go on there."""

import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from configs import changed
from safetensors.torch import save_file

from sgformer.config import TrainConfig
from sgformer.data.image_data import ImageData, load_image_data
from sgformer.training.checkpoint import (
    resume_progress,
    save_progress,
    save_within_epoch,
)
from sgformer.training.epoch_metrics import EpochMetrics
from sgformer.training.trainer import Trainer

WITHIN = "within_epoch.safetensors"
EVERYTHING = {
    "model": {"drop_rate": 0.2, "drop_path_rate": 0.1},
    "augmentation": {"policy": "guide", "mixup": 0.4},
    "optimizer": {"max_grad_norm": 1.0},
    "ema_decay": 0.9,
}


@pytest.fixture
def data(train_config: TrainConfig) -> ImageData:
    return load_image_data(train_config.data)


def without_time(history: list[EpochMetrics]) -> list[tuple[float, ...]]:
    return [(m.epoch, m.train_loss, m.val_loss, m.val_top1, m.learning_rate) for m in history]


def left_after(config: TrainConfig, data: ImageData, num_parts: int, folder: Path) -> Trainer:
    """A training that is saved after so many parts; an epoch has three steps, two val batches."""
    trainer = Trainer(config, data)
    parts = trainer.parts()
    for _ in range(num_parts):
        if next(parts) is not None:
            save_progress(trainer, folder)
    save_within_epoch(trainer, folder)
    return trainer


def resumed(config: TrainConfig, data: ImageData, folder: Path) -> Trainer:
    trainer = Trainer(config, data)
    assert resume_progress(trainer, folder) == ()
    return trainer


def assert_same(trainer: Trainer, other: Trainer) -> None:
    assert without_time(trainer.history) == without_time(other.history)
    tensors, metadata = trainer.state_dict()
    others, other_metadata = other.state_dict()
    assert metadata["scaler"] == other_metadata["scaler"]
    assert tensors.keys() == others.keys()
    for name, tensor in others.items():
        assert torch.equal(tensors[name], tensor), name


@pytest.mark.parametrize(
    ("changes", "num_parts", "num_steps"),
    [
        ({}, 1, 1),
        (EVERYTHING, 2, 2),
        (EVERYTHING, 4, 3),  # while it is validated
        (EVERYTHING, 8, 2),  # in the second epoch
        ({"precision": "fp16", "ema_decay": 0.9, "class_balance": "sampling"}, 8, 2),
        ({"epoch_images": 40, "max_epochs": 5}, 6, 1),  # the second epoch begins within a pass
    ],
)
def test_a_training_left_within_an_epoch_goes_on_bit_for_bit(
    train_config: TrainConfig,
    data: ImageData,
    tmp_path: Path,
    changes: dict,
    num_parts: int,
    num_steps: int,
) -> None:
    config = changed(train_config, **changes)
    whole = Trainer(config, data)
    list(whole.epochs())
    left_after(config, data, num_parts, tmp_path)
    trainer = resumed(config, data, tmp_path)
    assert (trainer.num_steps_done, trainer.num_steps_resumed) == (num_steps, num_steps)
    list(trainer.epochs())
    assert_same(trainer, whole)
    assert (trainer.num_steps_done, trainer.num_steps_resumed) == (0, 0)


def test_another_process_with_loaders_goes_on_bit_for_bit(
    train_config: TrainConfig, data: ImageData, tmp_path: Path
) -> None:
    config = changed(train_config, **EVERYTHING)
    whole = Trainer(config, data)
    list(whole.epochs())
    left_after(config, data, 2, tmp_path)
    script = (
        "import sys, torch\n"
        "from pathlib import Path\n"
        "from sgformer.training.checkpoint import resume_progress, save_progress\n"
        "from sgformer.config import TrainConfig\n"
        "from sgformer.data.image_data import load_image_data\n"
        "from sgformer.training.trainer import Trainer\n"
        "torch.set_num_threads(int(sys.argv[3]))\n"
        "config = TrainConfig.model_validate_json(sys.argv[1])\n"
        "trainer = Trainer(config, load_image_data(config.data))\n"
        "resume_progress(trainer, Path(sys.argv[2]))\n"
        "assert trainer.num_steps_done == 2\n"
        "for _ in trainer.epochs(): save_progress(trainer, Path(sys.argv[2]))\n"
    )
    with_loaders = changed(config, data={"num_workers": 2}).model_dump_json()
    arguments = [with_loaders, str(tmp_path), str(torch.get_num_threads())]
    subprocess.run([sys.executable, "-c", script, *arguments], check=True)
    assert_same(resumed(config, data, tmp_path), whole)


def test_weights_to_start_from_are_not_loaded_again_within_the_first_epoch(
    train_config: TrainConfig, data: ImageData, tmp_path: Path
) -> None:
    model = timm.create_model("sg_former_pico", num_classes=7)
    save_file(dict(model.state_dict()), tmp_path / "weights.safetensors")
    config = changed(train_config, model={"checkpoint": tmp_path / "weights.safetensors"})
    whole = Trainer(config, data)
    list(whole.epochs())
    left_after(config, data, 2, tmp_path / "0")
    trainer = resumed(config, data, tmp_path / "0")
    list(trainer.epochs())
    assert_same(trainer, whole)
    assert trainer.weights_loaded == whole.weights_loaded


def test_the_epochs_end_removes_what_was_saved_within_it(
    train_config: TrainConfig, data: ImageData, tmp_path: Path
) -> None:
    left_after(train_config, data, 1, tmp_path)
    assert (tmp_path / WITHIN).exists()
    trainer = resumed(train_config, data, tmp_path)
    next(trainer.epochs())
    save_progress(trainer, tmp_path)
    assert not (tmp_path / WITHIN).exists()


def test_a_checkpoint_within_an_epoch_that_has_ended_is_passed_over(
    train_config: TrainConfig, data: ImageData, tmp_path: Path
) -> None:
    left_after(train_config, data, 2, tmp_path)
    stale = (tmp_path / WITHIN).read_bytes()
    trainer = Trainer(train_config, data)
    next(trainer.epochs())
    save_progress(trainer, tmp_path)
    (tmp_path / WITHIN).write_bytes(stale)  # a crash came just before it was removed
    again = resumed(train_config, data, tmp_path)
    assert (again.num_epochs_done, again.num_steps_done) == (1, 0)


def test_a_spoiled_checkpoint_within_an_epoch_is_named_and_the_last_epochs_used(
    train_config: TrainConfig, data: ImageData, tmp_path: Path
) -> None:
    left_after(train_config, data, 8, tmp_path)
    path = tmp_path / WITHIN
    path.write_bytes(path.read_bytes()[:-5])
    trainer = Trainer(train_config, data)
    (line,) = resume_progress(trainer, tmp_path)
    assert WITHIN in line
    assert (trainer.num_epochs_done, trainer.num_steps_done) == (1, 0)


def test_out_of_memory_restarts_a_resumed_epoch_where_it_was_resumed(
    train_config: TrainConfig, data: ImageData, tmp_path: Path
) -> None:
    left_after(train_config, data, 1, tmp_path)
    expected = resumed(train_config, data, tmp_path)
    expected.micro_batches.size = 10
    list(expected.epochs())
    trainer = resumed(train_config, data, tmp_path)
    forwards = []

    def fail(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if module.training:
            forwards.append(len(inputs[0]))
            if len(forwards) == 2:
                raise MemoryError

    trainer.model.register_forward_pre_hook(fail)
    list(trainer.epochs())
    assert forwards[:6] == [20, 20, 10, 10, 10, 10]  # two steps of 20 were left
    assert_same(trainer, expected)
