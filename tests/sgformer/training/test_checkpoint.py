import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sgformer.config import TrainConfig
from sgformer.data.image_data import load_image_data
from sgformer.errors import CheckpointError
from sgformer.training.checkpoint import resume_progress, save_checkpoint, save_progress
from sgformer.training.checkpoint_file import load_checkpoint
from sgformer.training.trainer import Trainer


def trainer_for(config: TrainConfig) -> Trainer:
    return Trainer(config, load_image_data(config.data))


def test_tensors_and_metadata_come_back(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(2, 3).T, "b": torch.tensor(1)}
    save_checkpoint(
        tmp_path / "deep" / "x.safetensors", tensors, {"epoch": 3, "nan": float("nan")}
    )
    loaded, metadata = load_checkpoint(tmp_path / "deep" / "x.safetensors")
    assert torch.equal(loaded["a"], tensors["a"])
    assert metadata["epoch"] == 3
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["x.safetensors"]


def spoil_nothing(path: Path) -> None:
    path.unlink()


def spoil_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def spoil_foreign(path: Path) -> None:
    save_file({"a": torch.ones(1)}, path)


def spoil_text(path: Path) -> None:
    path.write_text("not a checkpoint")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_nothing, r"cannot read checkpoint .*x\.safetensors"),
        (spoil_cut, r"cannot read checkpoint .*x\.safetensors"),
        (spoil_text, r"cannot read checkpoint .*x\.safetensors"),
        (spoil_foreign, r"x\.safetensors is not a checkpoint of this program"),
    ],
)
def test_damaged_and_foreign_files_are_refused_by_name(
    tmp_path: Path, spoil: object, message: str
) -> None:
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, {"a": torch.ones(3)}, {})
    spoil(path)  # type: ignore[operator]
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)


def test_progress_is_saved_and_resumed(train_config: TrainConfig, tmp_path: Path) -> None:
    trainer = trainer_for(train_config)
    assert resume_progress(trainer, tmp_path) == ()
    assert trainer.num_epochs_done == 0
    for _ in trainer.epochs():
        save_progress(trainer, tmp_path)
    resumed = trainer_for(train_config)
    assert resume_progress(resumed, tmp_path) == ()
    assert resumed.history == trainer.history
    assert resumed.end_reason == "completed"
    assert list(resumed.epochs()) == []


def test_the_best_epochs_weights_are_kept(train_config: TrainConfig, tmp_path: Path) -> None:
    trainer = trainer_for(train_config)
    best: dict[str, torch.Tensor] = {}
    for _ in trainer.epochs():
        save_progress(trainer, tmp_path)
        if trainer.early_stopping.best_epoch == trainer.num_epochs_done:
            best = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    tensors, metadata = load_checkpoint(tmp_path / "best.safetensors")
    assert metadata["epoch"] == trainer.early_stopping.best_epoch
    assert all(torch.equal(tensors[name], best[name]) for name in best)


def test_an_epochs_copy_stays_while_the_next_is_trained_and_its_memory_is_used_again(
    train_config: TrainConfig,
) -> None:
    trainer = trainer_for(train_config.model_copy(update={"ema_decay": 0.9}))
    parts = trainer.parts()
    while next(parts) is None:
        pass
    copies, _ = trainer.snapshot()
    values = {name: tensor.clone() for name, tensor in copies.items()}
    assert next(parts) is None
    assert all(torch.equal(copies[name], values[name]) for name in values)
    while next(parts) is None:
        pass
    again, _ = trainer.snapshot()
    assert all(again[name].data_ptr() == copies[name].data_ptr() for name in values)
    tensors, _ = trainer.state_dict()
    assert all(torch.equal(again[name], tensors[name]) for name in tensors)
    assert not torch.equal(again["model.head.weight"], values["model.head.weight"])


def test_the_curve_is_a_csv(train_config: TrainConfig, tmp_path: Path) -> None:
    trainer = trainer_for(train_config)
    for _ in trainer.epochs():
        save_progress(trainer, tmp_path)
    rows = list(csv.DictReader((tmp_path / "epochs.csv").open()))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
    assert [float(row["val_top1"]) for row in rows] == [m.val_top1 for m in trainer.history]


def test_a_resume_mends_the_curve(train_config: TrainConfig, tmp_path: Path) -> None:
    trainer = trainer_for(train_config)
    for _ in trainer.epochs():
        save_progress(trainer, tmp_path)
    text = (tmp_path / "epochs.csv").read_text()
    (tmp_path / "epochs.csv").write_text("".join(text.splitlines(keepends=True)[:-1]))
    resume_progress(trainer_for(train_config), tmp_path)
    assert (tmp_path / "epochs.csv").read_text() == text


def test_another_configurations_checkpoint_is_refused(
    train_config: TrainConfig, tmp_path: Path
) -> None:
    trainer = trainer_for(train_config)
    next(trainer.epochs())
    save_progress(trainer, tmp_path)
    other = trainer_for(train_config.model_copy(update={"seed": 5}))
    with pytest.raises(CheckpointError, match="belongs to another configuration"):
        resume_progress(other, tmp_path)


@pytest.mark.parametrize("spoil", [spoil_nothing, spoil_cut, spoil_foreign, spoil_text])
def test_a_spoiled_checkpoint_is_named_and_the_one_before_it_used(
    train_config: TrainConfig, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    trainer = trainer_for(train_config)
    epochs = trainer.epochs()
    for _ in range(2):
        next(epochs)
        save_progress(trainer, tmp_path)
    spoil(tmp_path / "last.safetensors")
    resumed = trainer_for(train_config)
    refused = resume_progress(resumed, tmp_path)
    assert resumed.num_epochs_done == 1
    assert len(list(csv.DictReader((tmp_path / "epochs.csv").open()))) == 1
    assert len(refused) == (spoil is not spoil_nothing)
    assert all("last.safetensors" in line for line in refused)
    list(resumed.epochs())
    assert resumed.history[1].train_loss == trainer.history[1].train_loss
    save_progress(resumed, tmp_path)
    assert not (tmp_path / "previous.safetensors").exists()  # the training has ended


def test_two_spoiled_checkpoints_are_refused(train_config: TrainConfig, tmp_path: Path) -> None:
    epochs = (trainer := trainer_for(train_config)).epochs()
    for _ in range(2):
        next(epochs)
        save_progress(trainer, tmp_path)
    spoil_cut(tmp_path / "last.safetensors")
    spoil_text(tmp_path / "previous.safetensors")
    with pytest.raises(
        CheckpointError, match=r"last\.safetensors.*previous\.safetensors.*; remove .* to train"
    ):
        resume_progress(trainer_for(train_config), tmp_path)


def test_a_checkpoint_of_other_images_is_refused(
    train_config: TrainConfig, own_image_folder: Path, tmp_path: Path
) -> None:
    data = train_config.data.model_copy(update={"data_dir": own_image_folder})
    config = train_config.model_copy(update={"data": data})
    trainer = trainer_for(config)
    next(trainer.epochs())
    save_progress(trainer, tmp_path)
    (own_image_folder / "train" / "0" / "0.png").unlink()
    with pytest.raises(CheckpointError, match="is of a training on other images or classes"):
        resume_progress(trainer_for(config), tmp_path)


def test_a_checkpoint_that_lacks_something_is_refused(
    train_config: TrainConfig, tmp_path: Path
) -> None:
    trainer = trainer_for(train_config)
    next(trainer.epochs())
    tensors, metadata = trainer.state_dict()
    metadata["history"][0]["unheard_of"] = 1
    save_checkpoint(tmp_path / "last.safetensors", tensors, metadata)
    with pytest.raises(CheckpointError, match=r"last\.safetensors does not fit this program"):
        resume_progress(trainer_for(train_config), tmp_path)
