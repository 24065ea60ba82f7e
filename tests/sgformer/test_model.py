import pytest
import timm
import torch

from sgformer.config import MODEL_NAMES
from sgformer.errors import ConfigError
from sgformer.model import SGFormer

# Source: the released class, 1000 classes at 224 pixels.
NUM_PARAMETERS = {
    "sg_former_b0": 5_703_296,
    "sg_former_b1": 12_883_997,
    "sg_former_b2": 22_545_981,
    "sg_former_b3": 38_689_316,
    "sg_former_b4": 60_037_412,
    "sg_former_b5": 83_655_396,
    "sg_former_s": 22_545_981,
    "sg_former_m": 38_689_316,
    "sg_former_b": 77_950_293,
}


def tiny(**kwargs: object) -> SGFormer:
    sizes = {"embed_dims": (16, 32, 32, 64), "depths": (2, 2, 2, 1), "num_heads": (2, 2, 2, 4)}
    return SGFormer(**({"num_classes": 5} | sizes | kwargs))  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "expected"), NUM_PARAMETERS.items())
def test_the_sizes_have_the_released_number_of_parameters(name: str, expected: int) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    assert sum(p.numel() for p in model.parameters()) == expected


@pytest.mark.parametrize(
    ("name", "millions"),
    [("sg_former_pico", 0.1), ("sg_former_nano", 0.4), ("sg_former_micro", 1.5)],
)
def test_the_small_sizes_are_small(name: str, millions: float) -> None:
    model = timm.create_model(name, num_classes=10, img_size=32)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(millions * 1e6, rel=0.25)


@pytest.mark.parametrize("name", [n for n in MODEL_NAMES if NUM_PARAMETERS.get(n, 0) < 3e7])
def test_models_run_at_the_smallest_size(name: str) -> None:
    model = timm.create_model(name, num_classes=3, img_size=32).eval()
    with torch.inference_mode():
        assert model(torch.randn(2, 3, 32, 32)).shape == (2, 3)


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (160, 32), (224, 224)])
def test_every_parameter_gets_a_gradient_at_any_multiple_of_32(size: tuple[int, int]) -> None:
    model = tiny(drop_path_rate=0.1, attn_drop_rate=0.1, proj_drop_rate=0.1, drop_rate=0.1)
    model(torch.randn(2, 3, *size)).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_weights_move_between_input_sizes() -> None:
    model = tiny(img_size=224).eval()
    other = tiny(img_size=64).eval()
    weights = {k: v for k, v in model.state_dict().items() if k != "pos_embed"}
    assert other.load_state_dict(weights, strict=False).missing_keys == ["pos_embed"]
    with torch.inference_mode():
        assert model(torch.randn(1, 3, 64, 64)).shape == (1, 5)


def test_odd_depths_work() -> None:
    assert tiny(depths=(1, 3, 1, 1))(torch.randn(1, 3, 32, 32)).shape == (1, 5)


def test_the_batch_does_not_change_an_image() -> None:
    model = tiny(img_size=64).eval()
    images = torch.randn(3, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(model(images)[:1], model(images[:1]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(100, 96), (96, 33), (16, 32)])
def test_other_sizes_are_refused_with_the_nearest_named(size: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match=r"multiple of 32 pixels; nearest to \d+: 32|64|96"):
        tiny()(torch.randn(1, 3, *size))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (
            {"embed_dims": (18, 32, 32, 64)},
            r"embed_dims: the first must be divisible by 4, got 18",
        ),
        ({"num_heads": (2, 3, 2, 4)}, r"num_heads: 3 heads do not divide 32 channels \(stage 1\)"),
        ({"num_heads": (1, 2, 2, 4)}, r"num_heads: must be even in the first three stages, got 1"),
        ({"depths": (1, 1, 1)}, r"depths: one value for each of the four stages, got \(1, 1, 1\)"),
        ({"img_size": 100}, r"image size 100x100: each side must be a multiple of 32"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(kwargs: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny(**kwargs)


def test_pretrained_weights_are_refused_clearly() -> None:
    with pytest.raises(ConfigError, match=r"sg_former_pico: no pretrained weights are hosted"):
        timm.create_model("sg_former_pico", pretrained=True)
