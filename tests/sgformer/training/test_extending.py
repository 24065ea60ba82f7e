"""Trainings that extend a model by new classes."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from extensions import OLD, Extendable

from sgformer.config import TrainConfig
from sgformer.data.image_data import load_image_data
from sgformer.data.replay import train_samples
from sgformer.errors import CheckpointError
from sgformer.training.checkpoint import resume_progress, save_progress
from sgformer.training.teacher import load_teacher
from sgformer.training.train_pass import EpochSteps
from sgformer.training.trainer import Trainer


@pytest.fixture(scope="module")
def config(extendable: Extendable, train_config: TrainConfig) -> TrainConfig:
    """Four epochs, of which the last two are balanced."""
    return extendable.config(train_config.with_epochs(4), extension={"balanced_share": 0.5})


def make(config: TrainConfig) -> Trainer:
    return Trainer(config, load_image_data(config.data))


def test_an_extension_that_is_resumed_in_its_balanced_part_is_as_if_it_had_not_stopped(
    config: TrainConfig, tmp_path: Path
) -> None:
    whole = make(config)
    list(whole.epochs())
    assert whole.data.classes == (*OLD, "8", "9")
    assert "the head keeps the rows of 8 classes" in str(whole.weights_loaded)
    first = make(config)
    for metrics in first.epochs():
        save_progress(first, tmp_path)
        if metrics.epoch == 3:
            break
    second = make(config)
    resume_progress(second, tmp_path)
    list(second.epochs())
    assert [m.train_loss for m in second.history] == [m.train_loss for m in whole.history]


def test_an_extension_begins_with_what_its_base_answers(
    config: TrainConfig, extendable: Extendable
) -> None:
    """With a learning rate of nothing the old classes are told apart as the base does."""
    still = config.optimizer.model_copy(
        update={"learning_rate": 1e-30, "min_learning_rate": 0.0, "weight_decay": 0.0}
    )
    trainer = make(config.model_copy(update={"optimizer": still}))
    next(trainer.epochs())
    teacher = load_teacher(trainer.config, (), trainer.data.classes, torch.device("cpu"))
    assert teacher is not None
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    trainer.model.eval()
    with torch.no_grad():
        assert float(teacher.divergence(images, trainer.model(images), 2.0)) < 1e-5
        new = trainer.model(images)
        new[:, len(OLD) :] += 9.0  # new classes are not the old model's business
        assert float(teacher.divergence(images, new, 2.0)) < 1e-5
        new[:, 0] += 9.0
        assert float(teacher.divergence(images, new, 2.0)) > 1


@pytest.mark.parametrize(
    ("settings", "of_old"),
    [({}, 24 + 2), ({"exemplars": 1}, 8 + 2), ({"exemplars": 0}, 2), ({"choice": "random"}, 26)],
)
def test_an_extension_trains_on_new_images_and_exemplars(
    settings: dict, of_old: int, config: TrainConfig
) -> None:
    extension = config.extension.model_copy(update=settings)
    trainer = make(config.model_copy(update={"extension": extension}))
    num_batches = len(EpochSteps(trainer.config, trainer._samples).of(1))
    assert num_batches == (of_old + 12) // min(20, of_old + 12)


def test_the_last_part_of_an_extension_draws_every_class_as_often(config: TrainConfig) -> None:
    few = config.model_copy(
        update={"optimizer": config.optimizer.model_copy(update={"batch_size": 1})}
    )
    data = load_image_data(few.data)
    samples = train_samples(data, few.extension.model_copy(update={"exemplars": 1}))
    assert len(samples) == 8 + 2 + 12
    steps = EpochSteps(few, samples)
    shares = []
    for epochs in ((1, 2), (3, 4)):
        draws = [draw for epoch in epochs for batch in steps.of(epoch) for draw in batch]
        counts = Counter(draw.label for draw in draws)
        shares.append((counts[8] + counts[9]) / len(draws))
    assert shares[0] == pytest.approx(12 / 22)
    assert shares[1] == pytest.approx(0.2, abs=0.15)


def test_images_without_an_old_class_are_no_extension(
    config: TrainConfig, extendable: Extendable
) -> None:
    data = config.data.model_copy(update={"data_dir": extendable.new})
    with pytest.raises(CheckpointError, match=r"^an extension keeps all classes .* lack '1', '2'"):
        make(config.model_copy(update={"data": data}))
