"""Tests that each setting that can be searched changes what the trainer does."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from extensions import Extendable
from feature_tables import write_told
from safetensors.torch import save_file

from hpo.config.search_space import apply_params
from hpo.config.space_checks import searchable_paths
from sgformer.config import TrainConfig
from sgformer.data.image_data import load_image_data
from sgformer.training.checkpoint import save_progress
from sgformer.training.trainer import Trainer

Params = dict[str, Any]
MIXED = {"augmentation.mixup": 0.8, "augmentation.cutmix": 0.8}
TAUGHT = {"distillation.teacher": ("teacher",)}
EXTENDED = {
    "extension.base": "extendable/base",
    "model.checkpoint": "extendable/base",
    "distillation.teacher": ("extendable/base",),
    "data.data_dir": "extendable/images/images.csv",
}
FUSED = {"data.features": "features.csv"}
# By setting: a value that differs from the default, and other settings that the value needs to
# have an effect.
CASES: dict[str, tuple[Any, Params]] = {
    "model.name": ("sg_former_nano", {}),
    "model.pretrained": (True, {}),
    "model.checkpoint": ("sg_former_pico.safetensors", {}),
    "model.drop_rate": (0.3, {}),
    "model.proj_drop_rate": (0.3, {}),
    "model.attn_drop_rate": (0.3, {}),
    "model.drop_path_rate": (0.3, {}),
    "model.fusion.dim": (8, FUSED),
    "model.fusion.dropout": (0.5, FUSED),
    "model.fusion.modality_dropout": (0.9, FUSED),
    "data.image_size": (64, {}),
    "data.crop_pct": (0.8, {}),
    "data.mean": ((0.5, 0.5, 0.5), {}),
    "data.std": ((0.5, 0.5, 0.5), {}),
    "data.interpolation": ("bilinear", {}),
    "augmentation.policy": ("none", {}),
    "augmentation.color_jitter": (0.4, {}),
    "augmentation.rand_augment_magnitude": (5, {}),
    "augmentation.random_erasing_prob": (0.9, {}),
    "augmentation.horizontal_flip_prob": (0.5, {}),
    "augmentation.min_crop_area": (0.2, {}),
    "augmentation.mixup": (0.8, {}),
    "augmentation.cutmix": (0.8, {}),
    "augmentation.mixup_prob": (0.2, MIXED),
    "augmentation.mixup_switch_prob": (1.0, MIXED),
    "optimizer.learning_rate": (1e-3, {}),
    "optimizer.weight_decay": (0.5, {}),
    "optimizer.layer_decay": (0.5, {}),
    "optimizer.head_learning_rate_factor": (5.0, {}),
    "optimizer.max_grad_norm": (0.01, {}),
    "optimizer.batch_size": (10, {}),
    "optimizer.lr_schedule": ("constant", {}),
    "optimizer.warmup_epochs": (0, {}),
    "optimizer.min_learning_rate": (5e-4, {}),
    "early_stopping.patience": (1, {"early_stopping.min_delta": 1.0}),
    "early_stopping.min_delta": (1.0, {"early_stopping.patience": 1}),
    "early_stopping.warmup_epochs": (
        3,
        {"early_stopping.min_delta": 1.0, "early_stopping.patience": 1},
    ),
    "label_smoothing": (0.3, {}),
    "distillation.temperature": (8.0, TAUGHT),
    "distillation.weight": (0.9, TAUGHT),
    "extension.exemplars": (1, EXTENDED),
    "extension.choice": ("random", EXTENDED),
    "extension.balanced_share": (1.0, EXTENDED),
    "class_balance": ("loss", {}),
    "ema_decay": (0.5, {}),
    "freeze": ("stages_2", {}),
    "unfreeze_epoch": (2, {"freeze": "backbone"}),
    "precision": ("bf16", {}),
}


def trained(base: TrainConfig, params: Params) -> tuple[int, torch.Tensor]:
    """Number of epochs, and weights, after a training."""
    config = apply_params(base, params, "test")
    trainer = Trainer(config, load_image_data(config.data))
    list(trainer.epochs())
    weights = [p.detach().flatten() for p in trainer.model.parameters()]
    return len(trainer.history), torch.cat(weights)


@pytest.fixture(scope="module")
def weights(
    train_config: TrainConfig, extendable: Extendable, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder of weights of the smallest model, a teacher, a model to extend, and features."""
    folder = tmp_path_factory.mktemp("weights")
    model = timm.create_model("sg_former_pico", num_classes=7)
    save_file(dict(model.state_dict()), folder / "sg_former_pico.safetensors")
    trainer = Trainer(train_config.with_epochs(1), load_image_data(train_config.data))
    for _ in trainer.epochs():
        save_progress(trainer, folder / "teacher")
    (folder / "extendable").symlink_to(extendable.base.parent)
    assert train_config.data.data_dir is not None
    write_told(folder / "features.csv", train_config.data.data_dir)
    return folder


@pytest.fixture(autouse=True)
def _in_weights(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of weights is the current one, too."""
    monkeypatch.setenv("SGFORMER_WEIGHTS", str(weights))
    monkeypatch.chdir(weights)


@pytest.fixture(scope="module")
def defaults() -> dict[str, tuple[int, torch.Tensor]]:
    return {}


@pytest.fixture
def unbalanced(train_config: TrainConfig, own_image_folder: Path) -> TrainConfig:
    """Three epochs over classes of unequal size."""
    for path in sorted((own_image_folder / "train" / "3").iterdir())[:4]:
        path.unlink()
    data = train_config.data.model_copy(update={"data_dir": own_image_folder})
    return train_config.model_copy(update={"data": data})


def test_no_parameter_is_forgotten() -> None:
    assert set(CASES) == set(searchable_paths())


@pytest.mark.parametrize("path", CASES)
def test_a_parameter_changes_the_training(
    path: str, unbalanced: TrainConfig, defaults: dict[str, tuple[int, torch.Tensor]]
) -> None:
    value, others = CASES[path]
    key = repr(others)
    if key not in defaults:
        defaults[key] = trained(unbalanced, others)
    num_epochs, weights = defaults[key]
    changed_epochs, changed_weights = trained(unbalanced, {**others, path: value})
    assert torch.isfinite(changed_weights).all()
    assert changed_epochs != num_epochs or not torch.equal(weights, changed_weights)
