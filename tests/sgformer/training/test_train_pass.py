"""Epochs of any length: the steps and the order of images are those of passes over the set."""

import itertools
from pathlib import Path

import pytest
import torch
from configs import changed

from sgformer.config import TrainConfig
from sgformer.data.image_data import ImageData, load_image_data
from sgformer.data.plans import Draw, TrainPlan
from sgformer.seeding import seed_of
from sgformer.training.checkpoint import resume_progress, save_progress
from sgformer.training.train_pass import EpochSteps
from sgformer.training.trainer import Trainer

PASSES = 2  # of 60 images, so of three steps


@pytest.fixture
def data(train_config: TrainConfig) -> ImageData:
    return load_image_data(train_config.data)


def in_epochs_of(config: TrainConfig, num_images: int | None) -> TrainConfig:
    """The same training of `PASSES` passes, cut into epochs of so many images."""
    factor = 60 / (num_images or 60)
    return changed(
        config,
        epoch_images=num_images,
        max_epochs=round(PASSES * factor),
        optimizer={"warmup_epochs": factor},
        early_stopping={"patience": None},
    )


def draws(config: TrainConfig, data: ImageData, num_epochs: int) -> list[list[Draw]]:
    epochs = EpochSteps(config, data.samples("train"))
    return [batch for epoch in range(1, num_epochs + 1) for batch in epochs.of(epoch)]


@pytest.mark.parametrize("balance", ["none", "sampling"])
def test_virtual_epochs_draw_the_same_images_in_the_same_order(
    train_config: TrainConfig, data: ImageData, balance: str
) -> None:
    config = changed(train_config, class_balance=balance)
    whole = draws(config, data, 4)
    samples, balanced = data.samples("train"), balance == "sampling"
    seeds = [seed_of(config.seed, number) for number in (1, 2, 3, 4)]
    passes = [list(TrainPlan(samples, 20, seed, balanced=balanced)) for seed in seeds]
    assert whole == list(itertools.chain.from_iterable(passes))
    for num_images, num_epochs in ((20, 12), (40, 6), (80, 3), (240, 1)):
        cut = changed(config, epoch_images=num_images)
        assert draws(cut, data, num_epochs) == whole


def test_an_epoch_has_the_nearest_number_of_whole_batches(
    train_config: TrainConfig, data: ImageData
) -> None:
    for num_images, num_steps in ((20, 1), (29, 1), (30, 2), (50, 3)):
        cut = changed(train_config, epoch_images=num_images)
        assert len(EpochSteps(cut, data.samples("train")).of(2)) == num_steps


EVERYTHING = {
    "model": {"drop_rate": 0.2, "drop_path_rate": 0.1},
    "augmentation": {"policy": "guide", "mixup": 0.4},
    "optimizer": {"max_grad_norm": 1.0},
    "ema_decay": 0.9,
}


@pytest.mark.parametrize("num_images", [20, 40])
def test_a_training_in_virtual_epochs_is_the_same_training(
    train_config: TrainConfig, data: ImageData, num_images: int
) -> None:
    config = changed(train_config, **EVERYTHING)
    whole, cut = (Trainer(in_epochs_of(config, n), data) for n in (None, num_images))
    losses = [metrics.val_loss for metrics in whole.epochs()]
    assert [metrics.val_loss for metrics in cut.epochs()][-1] == losses[-1]
    assert len(cut.history) == PASSES * 60 // num_images
    assert cut.history[-1].learning_rate == whole.history[-1].learning_rate
    for name, tensor in whole.state_dict()[0].items():
        assert torch.equal(cut.state_dict()[0][name], tensor), name


def test_warm_up_patience_and_unfreezing_count_virtual_epochs(
    train_config: TrainConfig, data: ImageData
) -> None:
    config = changed(
        train_config,
        epoch_images=20,
        max_epochs=9,
        optimizer={"warmup_epochs": 2, "learning_rate": 1e-3},
        early_stopping={"patience": 2, "min_delta": 1.0},
        freeze="backbone",
        unfreeze_epoch=3,
    )
    trainer = Trainer(config, data)
    sizes = [len(trainer.state_dict()[0]) for _ in trainer.epochs()]
    assert (trainer.end_reason, trainer.num_epochs_done) == ("early_stopped", 3)
    rates = [metrics.learning_rate for metrics in trainer.history]
    assert rates[:2] == pytest.approx([5e-4, 1e-3])
    assert sizes[0] == sizes[1] < sizes[2]  # AdamW's moments of what has joined


def test_a_training_resumes_between_virtual_epochs_bit_for_bit(
    train_config: TrainConfig, data: ImageData, tmp_path: Path
) -> None:
    config = in_epochs_of(changed(train_config, **EVERYTHING), 40)
    whole = Trainer(config, data)
    list(whole.epochs())
    for _ in range(3):  # a new trainer for each epoch; the second begins within a pass
        trainer = Trainer(config, data)
        resume_progress(trainer, tmp_path)
        next(trainer.epochs())
        save_progress(trainer, tmp_path)
    assert [m.train_loss for m in trainer.history] == [m.train_loss for m in whole.history]
    for name, tensor in whole.state_dict()[0].items():
        assert torch.equal(trainer.state_dict()[0][name], tensor), name


class OutOfMemory:
    """A hook under which the forwards of these numbers, from 1, fail for want of memory."""

    def __init__(self, failing: set[int]) -> None:
        self.failing, self.num_forwards = failing, 0

    def __call__(self, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if module.training:
            self.num_forwards += 1
            if self.num_forwards in self.failing:
                raise MemoryError


def test_out_of_memory_restarts_a_virtual_epoch_as_it_was(
    train_config: TrainConfig, data: ImageData
) -> None:
    config = in_epochs_of(train_config, 40)
    expected = Trainer(config, data)
    epochs = expected.epochs()
    next(epochs)
    expected.micro_batches.size = 5
    list(epochs)
    trainer = Trainer(config, data)
    # In the second epoch, each time in its second step: of 20, and then of 10 images at a time.
    trainer.model.register_forward_pre_hook(OutOfMemory({4, 7}))
    history = list(trainer.epochs())
    assert [m.micro_batch_size for m in history] == [20, 5, 5]
    for name, tensor in expected.state_dict()[0].items():
        assert torch.equal(trainer.state_dict()[0][name], tensor), name


def test_settings_of_former_trainings_keep_their_fingerprint(train_config: TrainConfig) -> None:
    values = train_config.model_dump()
    del values["epoch_images"], values["eval_images"]
    assert TrainConfig.model_validate(values).fingerprint() == train_config.fingerprint()
    different = [changed(train_config, epoch_images=n).fingerprint() for n in (None, 20, 40)]
    assert len(set(different)) == 3
    assert different[0] == train_config.fingerprint()


def test_pieces_of_a_pass_lie_where_the_pass_does(
    train_config: TrainConfig, data: ImageData
) -> None:
    steps = EpochSteps(changed(train_config, epoch_images=40), data.samples("train"))
    places = [tuple(place) for epoch in (1, 2, 3) for place in steps.of(epoch).places]
    assert places == list(itertools.product((1, 2), (0, 1, 2)))
