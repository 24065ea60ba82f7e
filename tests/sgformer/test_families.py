"""Tests that small models of timm's families train, resume and export as SG-Former does."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from sgformer.config import TrainConfig
from sgformer.data.image_data import load_image_data
from sgformer.data.model_input import eval_batches
from sgformer.export.onnx_classifier import OnnxClassifier
from sgformer.export.onnx_export import export_onnx
from sgformer.export.proof import check_parity
from sgformer.model.build import create_model
from sgformer.optimization.optimizer import create_optimizer
from sgformer.training.checkpoint import resume_progress, save_progress
from sgformer.training.trainer import Trainer
from sgformer.validation import validate

LAYERS: dict[str, Any] = {"optimizer": {"layer_decay": 0.8}, "ema_decay": 0.9}
RATES = {"drop_rate": 0.1, "drop_path_rate": 0.1}
ALL_RATES = RATES | {"attn_drop_rate": 0.1, "proj_drop_rate": 0.1}


@dataclass(frozen=True)
class Case:
    """The smallest model of a family, an image size that it takes, and other settings."""

    name: str
    image_size: int = 32
    changes: dict[str, Any] = field(default_factory=dict)


CASES = (
    Case("test_resnet", changes={"model": RATES, **LAYERS}),
    Case("test_convnext", image_size=50, changes={"model": RATES}),
    Case("test_efficientnet", changes={"class_balance": "sampling", **LAYERS}),
    Case("mobilenetv3_small_050", changes={"optimizer": {"micro_batch_size": 7}}),
    Case("mobilenetv4_conv_small_035", changes={"ema_decay": 0.9}),
    Case("test_vit", image_size=48, changes={"model": ALL_RATES, **LAYERS}),
    Case("deit_tiny_distilled_patch16_224", changes={"precision": "bf16"}),
    Case("pvt_v2_b0", changes={"model": ALL_RATES, "augmentation": {"mixup": 0.5}}),
    Case("regnetx_002", changes={"optimizer": {"max_grad_norm": 1.0}}),
    Case("mixer_s32_224", image_size=64, changes={"class_balance": "loss"}),
    Case("edgenext_xx_small", image_size=64, changes=LAYERS),
)


def config_of(case: Case, base: TrainConfig) -> TrainConfig:
    """Two epochs of the family's model."""
    values = base.model_dump() | {"max_epochs": 2}
    values["model"]["name"] = case.name
    values["data"] |= {"image_size": case.image_size, "mean": None, "std": None}
    for name, change in case.changes.items():
        values[name] = values[name] | change if isinstance(change, dict) else change
    return validate(TrainConfig, values, "here").resolved()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_family_trains_resumes_bit_for_bit_and_exports(
    case: Case, train_config: TrainConfig, tmp_path: Path
) -> None:
    config = config_of(case, train_config)
    data = load_image_data(config.data)
    whole = Trainer(config, data)
    list(whole.epochs())
    assert whole.end_reason == "completed"

    first = Trainer(config, data)
    next(first.epochs())
    save_progress(first, tmp_path)
    resumed = Trainer(config, data)
    resume_progress(resumed, tmp_path)
    list(resumed.epochs())
    expected, _ = whole.state_dict()
    tensors, _ = resumed.state_dict()
    assert tensors.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(tensors[name], expected[name])] == []
    assert resumed.history[1].val_loss == whole.history[1].val_loss

    file = tmp_path / "model.onnx"
    export_onnx(whole.model, file, config, data.classes)
    images = next(eval_batches(data, data.samples("val"), config.data, 30))[0].numpy()
    parity = check_parity(whole.model, OnnxClassifier(file), images)
    assert parity.argmax_agreement == 1.0


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_layers_near_the_images_learn_more_slowly_than_the_head(
    case: Case, train_config: TrainConfig
) -> None:
    config = config_of(case, train_config)
    with torch.device("meta"):
        model = create_model(config, 10)
    optimizer = config.optimizer.model_copy(update={"layer_decay": 0.8})
    scales = {
        id(parameter): group["lr_scale"]
        for group in create_optimizer(model, optimizer).param_groups
        for parameter in group["params"]
    }
    parameters = list(model.parameters())
    assert len(scales) == len(parameters)
    heads = model.get_classifier()
    for head in heads if isinstance(heads, tuple) else (heads,):
        assert {scales[id(parameter)] for parameter in head.parameters()} == {1.0}
    assert min(scales.values()) < 0.8
