import re
from pathlib import Path

import pytest
import torch
from configs import changed
from safetensors.torch import load_file, save_file

from sgformer.config import TrainConfig
from sgformer.data.image_data import ImageData, load_image_data
from sgformer.errors import CheckpointError
from sgformer.training.checkpoint import resume_progress, save_progress
from sgformer.training.teacher import load_teacher
from sgformer.training.trainer import Trainer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(train_config: TrainConfig) -> ImageData:
    return load_image_data(train_config.data)


@pytest.fixture(scope="module")
def teacher(
    train_config: TrainConfig, data: ImageData, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a training of two epochs."""
    folder = tmp_path_factory.mktemp("teacher")
    trainer = Trainer(changed(train_config, seed=7, max_epochs=2), data)  # type: ignore[arg-type]
    for _ in trainer.epochs():
        save_progress(trainer, folder)
    return folder


def taught(config: TrainConfig, *teacher: Path, **settings: object) -> TrainConfig:
    return changed(config, distillation={"teacher": list(map(str, teacher)), **settings})


def test_a_student_of_the_teacher_alone_comes_close_to_its_answers(
    train_config: TrainConfig, data: ImageData, teacher: Path
) -> None:
    config = taught(train_config, teacher, weight=1.0)
    losses = [metrics.train_loss for metrics in Trainer(config, data).epochs()]
    alone = [metrics.train_loss for metrics in Trainer(train_config, data).epochs()]
    assert losses[-1] < losses[0] < alone[-1]  # in nats, from a teacher that is unsure


def test_a_weight_of_zero_is_a_training_without_a_teacher(
    train_config: TrainConfig, data: ImageData, teacher: Path
) -> None:
    plain = Trainer(train_config, data)
    without = Trainer(taught(train_config, teacher, weight=0.0), data)
    assert plain.fingerprint == without.fingerprint
    for one in (plain, without):
        next(one.epochs())
    assert plain.history[0].train_loss == without.history[0].train_loss


def test_the_fingerprint_tells_teacher_temperature_and_weight(
    train_config: TrainConfig, teacher: Path
) -> None:
    configs = [
        train_config,
        taught(train_config, teacher),
        taught(train_config, teacher, temperature=3.0),
        taught(train_config, teacher, weight=0.7),
        taught(train_config, teacher, teacher),
    ]
    assert len({config.fingerprint() for config in configs}) == len(configs)
    assert len({configs[1].fingerprint(teachers=[digest]) for digest in "ab"}) == 2


def test_a_distillation_is_resumed_as_if_it_had_not_stopped(
    train_config: TrainConfig, data: ImageData, teacher: Path, tmp_path: Path
) -> None:
    config = taught(train_config, teacher)
    whole = Trainer(config, data)
    list(whole.epochs())
    first = Trainer(config, data)
    next(first.epochs())
    save_progress(first, tmp_path)
    second = Trainer(config, data)
    resume_progress(second, tmp_path)
    list(second.epochs())
    assert [m.train_loss for m in second.history] == [m.train_loss for m in whole.history]


def test_a_checkpoint_of_other_classes_is_refused(
    train_config: TrainConfig, teacher: Path, data: ImageData
) -> None:
    config = taught(train_config, teacher)
    classes = [*data.classes[1:], "cat"]
    with pytest.raises(
        CheckpointError, match=r"only the images have 'cat', only the teacher has '0'$"
    ):
        load_teacher(config, (), classes, CPU)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("none", "no such file: "),
        ("foreign.safetensors", "is not a checkpoint of this program"),
        ("last.safetensors", "does not say which model it is of; name the"),
        ("cut.safetensors", "cannot read checkpoint"),
    ],
)
def test_what_is_no_teacher_is_refused(
    name: str, problem: str, train_config: TrainConfig, teacher: Path, tmp_path: Path
) -> None:
    path = tmp_path / name
    content = (teacher / "best.safetensors").read_bytes()
    if name == "foreign.safetensors":
        save_file(load_file(teacher / "best.safetensors"), path)
    elif name == "cut.safetensors":
        path.write_bytes(content[:100])
    elif name != "none":
        path.write_bytes((teacher / name).read_bytes())
    with pytest.raises(CheckpointError, match=re.escape(problem)):
        load_teacher(taught(train_config, path), (), ["a"], CPU)
