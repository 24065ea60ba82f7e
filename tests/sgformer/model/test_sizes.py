import pytest
import timm
import torch

import sgformer.model
from sgformer.catalog import MODEL_NAMES

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


def test_a_size_is_a_function_of_timms_registry_and_of_its_module() -> None:
    for name in MODEL_NAMES:
        create = timm.models.model_entrypoint(name)
        assert create is getattr(sgformer.model.sizes, name)
        assert (create.__name__, create.__module__) == (name, "sgformer.model.sizes")
        assert timm.models.get_pretrained_cfg(name).architecture == name


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_images_may_have_other_channels(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name, in_chans=1)
    assert model.stem[0].in_channels == model.in_chans == 1
