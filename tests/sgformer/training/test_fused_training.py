"""Tests of trainings of models that take features beside images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from configs import changed
from feature_tables import names_of, write_csv, write_told

from sgformer.config import TrainConfig
from sgformer.data.few_images import few_images
from sgformer.data.image_data import load_image_data
from sgformer.data.image_folder import read_image_folder
from sgformer.data.model_input import eval_batches
from sgformer.errors import CheckpointError, ConfigError
from sgformer.optimization.numerics import Numerics
from sgformer.training.checkpoint import resume_progress, save_progress, save_within_epoch
from sgformer.training.checkpoint_file import read_metadata
from sgformer.training.modalities import FEATURES_ALONE, IMAGE_ALONE, ModalityCounts
from sgformer.training.trained_model import load_trained
from sgformer.training.trainer import Trainer

pytestmark = pytest.mark.fuse

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def told(
    train_config: TrainConfig, image_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> TrainConfig:
    """A training with a table whose number tells the digit."""
    table = write_told(tmp_path_factory.mktemp("tables") / "told.csv", image_folder)
    return changed(
        train_config, data={"features": table}, model={"fusion": {"dim": 32, "dropout": 0.0}},
    )  # fmt: skip


def trainer_of(config: TrainConfig) -> Trainer:
    return Trainer(config, load_image_data(config.data))


@pytest.fixture(scope="module")
def trained(told: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[Trainer, Path]:
    folder, trainer = tmp_path_factory.mktemp("fused"), trainer_of(told)
    for _ in trainer.epochs():
        save_progress(trainer, folder)
    return trainer, folder


def test_a_model_learns_from_features_and_can_do_without_the_image(
    train_config: TrainConfig, image_folder: Path, tmp_path: Path
) -> None:
    table = write_csv(
        tmp_path / "t.csv", names_of(image_folder), lambda name: {"hint": f"is {digit_of(name)}"}
    )
    config = changed(
        train_config, data={"features": table}, max_epochs=15, label_smoothing=0.0,
        optimizer={"learning_rate": 1e-2}, model={"fusion": {"modality_dropout": 0.6}},
    )  # fmt: skip
    trainer = trainer_of(config)
    list(trainer.epochs())
    counts, data = ModalityCounts(10, CPU), trainer.data
    for given, labels in eval_batches(data, data.samples("val"), trainer.config.data, 16):
        counts.add(trainer.model, given, labels, Numerics(CPU))
    found = counts.metrics()
    assert found[FEATURES_ALONE]["top1"] > 0.8
    assert found[FEATURES_ALONE]["top1"] > found[IMAGE_ALONE]["top1"]
    assert trainer.evaluate("val").top1 > found[IMAGE_ALONE]["top1"]
    assert found[FEATURES_ALONE]["num_images"] == found[IMAGE_ALONE]["num_images"] == 30


def digit_of(name: str) -> str:
    return name.split("/")[1]


def test_features_alone_are_judged_where_there_are_features(
    trained: tuple[Trainer, Path], told: TrainConfig, image_folder: Path, tmp_path: Path
) -> None:
    names = [name for name in names_of(image_folder) if not name.startswith(("test/", "val/1"))]
    table = write_csv(tmp_path / "t.csv", names, lambda _: {"hint": 1, "colour": "red"})
    config = changed(told, data={"features": table})
    data, counts = load_image_data(config.data), {}
    for split in ("val", "test"):
        counts[split] = ModalityCounts(10, CPU)
        for given, labels in eval_batches(data, data.samples(split), config.data, 16):
            given = given._replace(features=given.features[:, [0, 1, 1]])
            counts[split].add(trained[0].model, given, labels, Numerics(CPU))
    found = {split: one.metrics() for split, one in counts.items()}
    assert found["val"][FEATURES_ALONE]["num_images"] == 27
    assert found["val"][IMAGE_ALONE]["num_images"] == 30
    assert set(found["test"]) == {IMAGE_ALONE}


def test_a_checkpoint_has_all_that_the_model_needs(trained: tuple[Trainer, Path]) -> None:
    trainer, folder = trained
    config, model, _ = load_trained(folder / "best.safetensors")
    assert config.model.fusion.num_features == 3
    assert trainer.data.features is not None
    scaling = trainer.data.features.scaling
    assert np.array_equal(model.feature_fusion.mean, scaling.mean)
    assert np.array_equal(model.feature_fusion.std, scaling.std)
    told = read_metadata(folder / "best.safetensors")["features"]
    assert [column["name"] for column in told["columns"]] == ["hint", "colour"]
    assert told["columns"][1]["categories"] == ["blue", "red"]


SETTINGS: dict[str, dict[str, Any]] = {
    "mixed, averaged and in micro-batches": {
        "augmentation": {"mixup": 0.5, "cutmix": 0.5}, "ema_decay": 0.9,
        "optimizer": {"micro_batch_size": 7},
    },
    "compute activations anew": {"grad_checkpointing": True, "precision": "bf16"},
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_a_fused_training_goes_on_as_if_it_was_never_left(
    name: str, told: TrainConfig, tmp_path: Path
) -> None:
    config = changed(told, max_epochs=2, **SETTINGS[name])
    whole = trainer_of(config)
    list(whole.epochs())
    left = trainer_of(config)
    for part in left.parts():
        if part is None and left.num_epochs_done == 1 and left.num_steps_done == 1:
            break
        if part is not None:
            save_progress(left, tmp_path)
    save_within_epoch(left, tmp_path)
    resumed = trainer_of(config)
    assert resume_progress(resumed, tmp_path) == ()
    list(resumed.epochs())
    for expected, found in zip(
        whole.model.state_dict().values(), resumed.model.state_dict().values(), strict=True
    ):
        assert torch.equal(expected, found)


def test_a_checkpoint_is_bound_to_the_content_of_the_features(
    trained: tuple[Trainer, Path], told: TrainConfig, tmp_path: Path
) -> None:
    table = told.data.features
    assert table is not None
    copied = tmp_path / "copy.csv"
    copied.write_text(table.read_text())
    moved = trainer_of(changed(told, data={"features": copied}))
    assert resume_progress(moved, trained[1]) == ()
    copied.write_text(table.read_text().replace("100", "101"))
    other = trainer_of(changed(told, data={"features": copied}))
    with pytest.raises(CheckpointError, match="belongs to another configuration"):
        resume_progress(other, trained[1])


def test_trainings_without_features_keep_their_fingerprints(train_config: TrainConfig) -> None:
    wider = changed(train_config, model={"fusion": {"dim": 7}})
    assert wider.fingerprint() == train_config.fingerprint()
    fused = changed(train_config, data={"features": "a.csv"})
    assert fused.fingerprint() != train_config.fingerprint()
    assert fused.fingerprint() == changed(train_config, data={"features": "b.csv"}).fingerprint()
    assert fused.fingerprint(features="1") != fused.fingerprint(features="2")
    assert fused.fingerprint() != changed(fused, model={"fusion": {"dim": 7}}).fingerprint()
    assert fused.fingerprint() == fused.with_num_features(3).fingerprint()


def test_weights_of_another_table_do_not_change_the_scaling(
    trained: tuple[Trainer, Path], told: TrainConfig, tmp_path: Path
) -> None:
    table = told.data.features
    assert table is not None
    other = tmp_path / "t.csv"
    other.write_text(table.read_text().replace(",1", ",7"))
    weights = trained[1] / "best.safetensors"
    trainer = trainer_of(
        changed(told, data={"features": other}, max_epochs=1, model={"checkpoint": weights})
    )
    list(trainer.epochs())
    assert trainer.data.features is not None
    assert np.array_equal(trainer.model.feature_fusion.mean, trainer.data.features.scaling.mean)


def test_a_config_that_asks_for_another_number_of_features_is_refused(told: TrainConfig) -> None:
    wrong = changed(told, model={"fusion": {"num_features": 7}})
    with pytest.raises(ConfigError, match=r"num_features: is 7, but the table has 3; leave it ou"):
        trainer_of(wrong)
    plain = changed(told, data={"features": None})
    with pytest.raises(ConfigError, match=r"data\.features: is .*told\.csv, but the images"):
        Trainer(told, load_image_data(plain.data))


def test_a_teacher_takes_images_alone_and_may_teach_a_model_of_both(
    trained: tuple[Trainer, Path], told: TrainConfig, tmp_path: Path
) -> None:
    fused = changed(told, distillation={"teacher": [trained[1]]}, max_epochs=1)
    with pytest.raises(CheckpointError, match="takes features beside images, and a teacher is sh"):
        trainer_of(fused)
    teacher = trainer_of(changed(told, data={"features": None}, max_epochs=1))
    for _ in teacher.epochs():
        save_progress(teacher, tmp_path)
    student = trainer_of(changed(told, distillation={"teacher": [tmp_path]}, max_epochs=1))
    assert np.isfinite(next(iter(student.epochs())).val_loss)


def test_a_profile_trains_on_a_few_images_with_their_features(
    told: TrainConfig, tmp_path: Path
) -> None:
    few = few_images(read_image_folder(told.data), 20)
    data = few.decoded(told.data, tmp_path, 30)
    assert np.isfinite(next(iter(Trainer(told, data).epochs())).val_loss)
