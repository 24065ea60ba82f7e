from typing import Any

import pytest
import timm
import torch

from sgformer.config import FusionConfig, TrainConfig
from sgformer.errors import ConfigError
from sgformer.model.build import create_model
from sgformer.model.fusion import FIRST_GATE, is_fused, num_features, set_scaling
from sgformer.model.stages import frozen_names
from sgformer.model.weight_files import Weights
from sgformer.model.weights import load_into
from sgformer.optimization.optimizer import create_optimizer

pytestmark = pytest.mark.fuse

NAN = float("nan")
NAMES = ("sg_former_pico", "test_resnet", "test_vit", "test_convnext", "test_efficientnet")
SIZES = {"test_vit": 48, "test_convnext": 50}


def config_of(name: str = "sg_former_pico", **fusion: Any) -> TrainConfig:
    values = {
        "model": {"name": name, "drop_path_rate": 0, "fusion": {"num_features": 3} | fusion},
        "data": {"image_size": SIZES.get(name, 32)},
    }
    return TrainConfig.model_validate(values).resolved()


def fused(name: str = "sg_former_pico", **settings: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    return create_model(config_of(name, **settings), 4).eval()


def images(name: str = "sg_former_pico", num: int = 5) -> torch.Tensor:
    side = SIZES.get(name, 32)
    return torch.randn(num, 3, side, side, generator=torch.Generator().manual_seed(1))


def features(num: int = 5) -> torch.Tensor:
    return torch.randn(num, 3, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", NAMES)
def test_a_model_with_its_gate_shut_answers_as_without_features(name: str) -> None:
    model = fused(name)
    torch.nn.init.constant_(model.feature_fusion.gate.bias, -100.0)
    own = {n: t for n, t in model.state_dict().items() if not n.startswith("feature_fusion.")}
    side = {"img_size": 48} if name == "test_vit" else {}
    plain = timm.create_model(name, num_classes=4, **side).eval()
    plain.load_state_dict(own)
    with torch.inference_mode():
        expected = plain(images(name))
        assert torch.allclose(model(images(name), features()), expected, atol=1e-5)
    assert isinstance(model, type(plain))
    assert is_fused(model)
    assert not is_fused(plain)
    assert num_features(model) == 3


@torch.inference_mode()
def test_a_missing_modality_changes_only_the_rows_that_lack_it() -> None:
    model, both = fused(), model_input()
    torch.nn.init.normal_(model.feature_fusion.no_image)
    torch.nn.init.normal_(model.feature_fusion.no_features)
    expected = model(*both)
    lacking = features()
    lacking[1, 2] = NAN  # one number of the vector
    pixels = images()
    pixels[3] = NAN
    found = model(pixels, lacking)
    assert found.isfinite().all()
    same = (found - expected).abs().amax(1) < 1e-6
    assert same.tolist() == [True, False, True, False, True]
    alone = model(images())
    assert torch.equal(alone, model(images(), torch.full((5, 3), NAN)))
    assert torch.allclose(alone[1], found[1], atol=1e-6)
    other = model(images(num=5).flip(0) * NAN, features())
    assert torch.allclose(other[3], found[3], atol=1e-6)


def model_input() -> tuple[torch.Tensor, torch.Tensor]:
    return images(), features()


@torch.inference_mode()
def test_features_are_standardised_by_the_model() -> None:
    model = fused()
    expected = model(images(), features())
    mean, std = torch.tensor([5.0, -1e4, 0.0]), torch.tensor([10.0, 1e3, 1.0])
    set_scaling(model, mean, std)
    found = model(images(), features() * std + mean)
    assert torch.allclose(found, expected, atol=1e-3)


def test_modality_dropout_hides_either_modality_and_never_both() -> None:
    fusion = fused(modality_dropout=0.5, dropout=0.0).feature_fusion.train()
    torch.nn.init.constant_(fusion.no_image, 1e3)
    torch.nn.init.constant_(fusion.no_features, -1e3)
    torch.nn.init.constant_(fusion.gate.bias, 0.0)
    num = 4000
    image = torch.zeros(num, fusion.no_image.shape[0])
    none = torch.zeros(num, 1, dtype=torch.bool)
    torch.manual_seed(0)
    found = fusion(image, torch.zeros(num, 3), none)[:, 0]
    hides_image, hides_features = found > 100, found < -100
    for hidden in (hides_image, hides_features):
        assert hidden.float().mean().item() == pytest.approx(0.25, abs=0.03)
    # With both hidden the two vectors would cancel, as they do not where one is left.
    shown = fusion.eval()(image, torch.zeros(num, 3), none)[:, 0]
    untouched = ~hides_image & ~hides_features
    assert torch.allclose(found[untouched], shown[untouched])
    lacks = torch.full((num, 3), NAN)
    alone = fusion.train()(image, lacks, none)[:, 0]
    assert (alone < -100).all()  # the image that is left is never hidden


def test_a_head_that_is_no_linear_layer_is_refused() -> None:
    words = r"deit_tiny_distilled_patch16_224 takes no features beside images, because its logits"
    values = config_of().model_dump()
    values["model"]["name"], values["data"]["image_size"] = "deit_tiny_distilled_patch16_224", 224
    with pytest.raises(ConfigError, match=words):
        create_model(TrainConfig.model_validate(values).resolved(), 4)


def test_a_frozen_backbone_trains_head_and_fusion() -> None:
    model = fused()
    frozen = frozen_names(model, "sg_former_pico", "backbone")
    trained = {name.split(".")[0] for name, _ in model.named_parameters() if name not in frozen}
    assert trained == {"feature_fusion", "head"}
    assert not any(n.startswith("feature_fusion") for n in frozen_names(model, "x", "stages_2"))


def test_the_head_s_learning_rate_is_the_fusion_s_too() -> None:
    config = config_of().optimizer.model_copy(update={"head_learning_rate_factor": 5.0})
    model = fused()
    scales = {id(p): g["lr_scale"] for g in create_optimizer(model, config).param_groups
              for p in g["params"]}  # fmt: skip
    assert {scales[id(p)] for p in model.feature_fusion.parameters()} == {5.0}


@pytest.mark.parametrize("num_classes", [4, 7])
def test_weights_of_images_alone_fit_a_fused_model(num_classes: int) -> None:
    source = timm.create_model("sg_former_pico", num_classes=num_classes, img_size=32)
    weights = Weights(dict(source.state_dict()), "FILE", tuple("abcdefg"[:num_classes]))
    model = fused()
    report = load_into(model, "sg_former_pico", weights, tuple("abcd"))
    new = {name.split(".")[0] for name in report.new}
    assert new == {"feature_fusion"} | ({"head"} if num_classes == 7 else set())
    name = next(n for n in source.state_dict() if n.endswith("norm1.weight"))
    assert torch.equal(model.state_dict()[name], source.state_dict()[name])


def test_weights_of_a_fused_model_fit_another_one() -> None:
    source, model = fused(), fused()
    torch.nn.init.normal_(source.feature_fusion.no_image)
    weights = Weights(dict(source.state_dict()), "FILE", tuple("abcd"))
    assert load_into(model, "sg_former_pico", weights, tuple("abcd")).new == ()
    assert torch.equal(model.feature_fusion.no_image, source.feature_fusion.no_image)
    wider = fused(num_features=4)
    new = load_into(wider, "sg_former_pico", weights, tuple("abcd")).new
    assert {name.split(".")[0] for name in new} == {"feature_fusion"}


def test_the_first_gate_lets_the_image_through() -> None:
    model = fused()
    assert model.feature_fusion.gate.bias.unique().tolist() == [FIRST_GATE]
    assert FusionConfig().num_features is None
