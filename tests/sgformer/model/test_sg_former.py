import pytest
import timm
import torch

from sgformer.errors import ConfigError
from sgformer.model.sg_former import SGFormer


def tiny(**kwargs: object) -> SGFormer:
    sizes = {"embed_dims": (16, 32, 32, 64), "depths": (2, 2, 2, 1), "num_heads": (2, 2, 2, 4)}
    return SGFormer(**({"num_classes": 5} | sizes | kwargs))  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (160, 32), (224, 224)])
def test_every_parameter_gets_a_gradient_at_any_multiple_of_32(size: tuple[int, int]) -> None:
    model = tiny(drop_path_rate=0.1, attn_drop_rate=0.1, proj_drop_rate=0.1, drop_rate=0.1)
    model(torch.randn(2, 3, *size)).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_odd_depths_work() -> None:
    assert tiny(depths=(1, 3, 1, 1))(torch.randn(1, 3, 32, 32)).shape == (1, 5)


def test_the_batch_does_not_change_an_image() -> None:
    model = tiny(img_size=64).eval()
    images = torch.randn(3, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(model(images)[:1], model(images[:1]), atol=1e-4, rtol=1e-4)


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


@pytest.mark.parametrize("side", range(32, 513, 96))
@pytest.mark.parametrize("training", [True, False])
def test_squares_from_32_to_512_run(side: int, training: bool) -> None:
    model = tiny().train(training)
    images = torch.randn(1, 3, side, side, requires_grad=True)
    out = model(images)
    out.sum().backward()
    assert torch.isfinite(out).all()
    assert images.grad is not None


@pytest.mark.slow
@pytest.mark.parametrize("height", range(32, 513, 32))
def test_every_size_from_32_to_512_runs_and_gives_gradients(height: int) -> None:
    model = tiny(drop_path_rate=0.1, attn_drop_rate=0.1)
    for width in {height, 32, 512, 544 - height}:
        model.zero_grad(set_to_none=True)
        out = model(torch.randn(1, 3, height, width))
        out.sum().backward()
        assert torch.isfinite(out).all()
        assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_at_224_no_gradient_is_zero() -> None:
    torch.manual_seed(0)
    model = tiny()
    torch.nn.functional.cross_entropy(
        model(torch.randn(2, 3, 224, 224)), torch.tensor([0, 1])
    ).backward()
    zero = [name for name, p in model.named_parameters() if not p.grad.any()]  # type: ignore[union-attr]
    assert zero == []


@pytest.mark.parametrize(
    ("pool", "num_classes", "shape"),
    [
        ("avg", 5, (2, 5)),
        ("max", 5, (2, 5)),
        ("", 0, (2, 64, 1, 2)),
        ("", 5, (2, 5, 1, 2)),
        ("avg", 0, (2, 64)),
    ],
)
def test_pooling_and_head(pool: str, num_classes: int, shape: tuple[int, ...]) -> None:
    model = tiny(global_pool=pool, num_classes=num_classes)
    assert model(torch.randn(2, 3, 32, 64)).shape == shape


def test_another_pooling_is_refused() -> None:
    with pytest.raises(ConfigError, match="global_pool: must be 'avg', 'max' or '', got 'cat'"):
        tiny(global_pool="cat")
    with pytest.raises(ConfigError, match="got 'cat'"):
        tiny().reset_classifier(3, "cat")


def test_the_classifier_can_be_reset() -> None:
    model = tiny(global_pool="max")
    model.reset_classifier(9)
    assert model.get_classifier() is model.head
    assert (model(torch.randn(1, 3, 32, 32)).shape, model.global_pool) == ((1, 9), "max")
    model.reset_classifier(0, "avg")
    assert model(torch.randn(1, 3, 32, 32)).shape == (1, 64)


def test_maps_of_stages_come_out() -> None:
    model = tiny().eval()
    images = torch.randn(1, 3, 64, 64)
    last, maps = model.forward_intermediates(images)
    assert [tuple(m.shape[1:]) for m in maps] == [(16, 16, 16), (32, 8, 8), (32, 4, 4), (64, 2, 2)]
    assert torch.equal(last, model.forward_features(images))
    (third,) = model.forward_intermediates(images, [2], stop_early=True, intermediates_only=True)
    assert torch.equal(third, maps[2])
    with pytest.raises(ConfigError, match="output_fmt: must be 'NCHW', got 'NLC'"):
        model.forward_intermediates(images, output_fmt="NLC")


@pytest.mark.parametrize("getter", [None, "getter", "fx"])
def test_features_come_through_timms_getters(getter: str | None) -> None:
    options = {"feature_cls": getter} if getter else {}
    model = timm.create_model("sg_former_pico", features_only=True, img_size=64, **options).eval()
    images = torch.randn(1, 3, 64, 64)
    assert model.feature_info.channels() == [m.shape[1] for m in model(images)]
    assert model.feature_info.reduction() == [4, 8, 16, 32]


def test_gradient_checkpointing_changes_nothing_but_memory() -> None:
    gradients = []
    for enable in (False, True):
        torch.manual_seed(0)
        model = tiny(attn_drop_rate=0.2, proj_drop_rate=0.2, drop_path_rate=0.2)
        model.set_grad_checkpointing(enable)
        torch.manual_seed(1)
        model(torch.ones(2, 3, 32, 32)).sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_layer_decay_groups_follow_the_depth() -> None:
    from timm.models._manipulate import group_parameters

    model = tiny()
    layers = group_parameters(model, model.group_matcher(), reverse=True)
    assert layers["stem.0.weight"] == layers["pos_embed"] == 0
    order = [layers[f"stages.{i}.blocks.{j}.mlp.fc1.weight"] for i in range(3) for j in range(2)]
    assert order == sorted(set(order))
    assert layers["head.weight"] == max(layers.values())


def test_device_and_dtype_are_the_parameters_own() -> None:
    model = tiny(device="meta", dtype=torch.bfloat16)
    assert {(p.device.type, p.dtype) for p in model.parameters()} == {("meta", torch.bfloat16)}


def test_half_precision_runs_at_another_size() -> None:
    model = tiny(dtype=torch.bfloat16, img_size=32).eval()
    assert model(torch.randn(1, 3, 64, 64, dtype=torch.bfloat16)).dtype == torch.bfloat16
