"""Tests of converted weights against the released model's outputs; see reference/README.md."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from released import Released, Shapes, released_weights

from sgformer.errors import CheckpointError
from sgformer.model.official import convert_state_dict
from sgformer.model.sg_former import SGFormer

REFERENCE = Path(__file__).parent / "reference"
TINY: dict[str, Any] = {
    "num_classes": 10,
    "embed_dims": (16, 32, 64, 128),
    "depths": (2, 2, 2, 1),
    "num_heads": (2, 2, 4, 4),
    "mlp_ratios": (2, 2, 2, 2),
}


def shapes_of(name: str) -> Shapes:
    shapes: Shapes = json.loads((REFERENCE / f"{name}_state_dict.json").read_text())
    return shapes


@pytest.mark.parametrize(
    ("name", "seed", "config"), [("tiny", 11, TINY), ("sgformer_s", 12, {"num_classes": 1000})]
)
def test_logits_are_the_released_models(name: str, seed: int, config: dict) -> None:
    expected = np.load(REFERENCE / f"{name}_seed{seed}.npz", allow_pickle=False)
    model = SGFormer(**config, dtype=torch.float64).eval()
    weights = released_weights(shapes_of(name), int(expected["seed"]))
    model.load_state_dict(convert_state_dict(weights))
    size = (int(expected["batch"]), 3, 224, 224)
    images = np.random.default_rng(int(expected["seed"]) + 1).standard_normal(size)
    with torch.inference_mode():
        features = model.forward_features(torch.from_numpy(images))
        pooled = model.forward_head(features, pre_logits=True)
        logits = model.forward_head(features)
    np.testing.assert_allclose(pooled.numpy(), expected["pooled"], rtol=0, atol=1e-8)
    np.testing.assert_allclose(logits.numpy(), expected["logits"], rtol=0, atol=1e-8)


def test_the_test_knows_the_released_names() -> None:
    assert Released(TINY) == shapes_of("tiny")


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"depths": (2, 4, 6, 1), "num_heads": (4, 8, 8, 8)},
        {"depths": (4, 2, 2, 3), "mlp_ratios": (1, 3, 4, 2.5)},
        {"embed_dims": (24, 48, 96, 120), "num_heads": (2, 4, 6, 5)},
    ],
)
def test_every_configuration_converts(change: dict) -> None:
    config = TINY | change
    weights = released_weights(Released(config), seed=3)
    model = SGFormer(**config, dtype=torch.float64)
    model.load_state_dict(convert_state_dict(weights))
    assert sum(p.numel() for p in model.parameters()) == sum(w.numel() for w in weights.values())


def wrap_module(weights: dict) -> dict:
    return {f"module.{name}": value for name, value in weights.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: {"state_dict": weights, "epoch": 3},
        lambda weights: {"model": wrap_module(weights)},
        lambda weights: {"model": {}, "model_ema": weights, "optimizer": {}},
        lambda weights: {"state_dict_ema": wrap_module(weights)},
        wrap_module,
    ],
)
def test_wrapped_checkpoints_are_unwrapped(wrap: Any) -> None:
    weights = released_weights(shapes_of("tiny"), seed=3)
    expected = convert_state_dict(weights)
    actual = convert_state_dict(wrap(weights))
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_dtypes_are_kept(dtype: torch.dtype) -> None:
    weights = {
        name: value.to(dtype) for name, value in released_weights(shapes_of("tiny"), 3).items()
    }
    assert {value.dtype for value in convert_state_dict(weights).values()} == {dtype}


def test_foreign_checkpoints_are_refused_by_their_first_names() -> None:
    with pytest.raises(CheckpointError, match=r"2 of 2 names are unknown, the first: conv1\.w, b"):
        convert_state_dict({"conv1.w": torch.ones(1), "b": torch.ones(1)})
    with pytest.raises(CheckpointError, match="it is empty"):
        convert_state_dict({})


def test_timm_loads_a_released_file(tmp_path: Path) -> None:
    shapes = Released({**TINY, "num_classes": 1000} | B0)
    weights = {name: value.float() for name, value in released_weights(shapes, 3).items()}
    path = tmp_path / "released.pth"
    torch.save({"state_dict": wrap_module(weights)}, path)
    overlay = {"file": str(path)}
    model = timm.create_model("sg_former_b0", pretrained=True, pretrained_cfg_overlay=overlay)
    assert torch.equal(model.head.weight, weights["head.weight"])
    tuned = timm.create_model(
        "sg_former_b0", pretrained=True, pretrained_cfg_overlay=overlay, num_classes=7, img_size=64
    )
    assert tuned.head.out_features == 7
    assert tuned.pos_embed.shape == (1, 256, 32)
    assert torch.equal(tuned.stages[0].norm.weight, weights["norm1.weight"])


B0: dict[str, Any] = {
    "embed_dims": (32, 64, 160, 256),
    "depths": (2, 2, 8, 2),
    "num_heads": (2, 2, 4, 8),
    "mlp_ratios": (4, 4, 4, 4),
}
