from typing import Any

import pytest
import timm
import torch

import sgformer.model.sizes  # noqa: F401  registers SG-Former's models with timm
from sgformer.config import TrainConfig
from sgformer.errors import ConfigError
from sgformer.optimization.numerics import (
    Numerics,
    allow_tf32,
    checkpoint_gradients,
    choose_numerics,
    exact_float32,
    is_convolutional,
)
from sgformer.training.evaluation import predicted_logits

CPU, GPU = torch.device("cpu"), torch.device("cuda")
CONVOLUTIONAL = ("resnet18", "convnext_atto", "mobilenetv3_small_050", "tf_efficientnet_lite0",
                 "regnetx_002")  # fmt: skip
OTHERS = ("vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "pvt_v2_b0", "mixer_s32_224",
          "edgenext_xx_small", "sg_former_nano", "sg_former_b0")  # fmt: skip


def model_of(name: str) -> torch.nn.Module:
    with torch.device("meta"):
        model: torch.nn.Module = timm.create_model(name, num_classes=10)
    return model


def numerics_of(device: torch.device, name: str = "resnet18", **settings: object) -> Numerics:
    return choose_numerics(TrainConfig.model_validate(settings), model_of(name), device)


@pytest.mark.parametrize("in_hardware", [True, False])
def test_auto_is_bf16_where_the_gpu_has_it_in_hardware(
    monkeypatch: pytest.MonkeyPatch, in_hardware: bool
) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return including_emulation or in_hardware

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert numerics_of(GPU).precision == ("bf16" if in_hardware else "float32")
    assert numerics_of(CPU).precision == "float32"
    assert numerics_of(GPU, precision="float32").precision == "float32"
    assert numerics_of(CPU, precision="fp16").precision == "fp16"


@pytest.mark.parametrize("name", [*CONVOLUTIONAL, *OTHERS])
def test_auto_is_channels_last_for_convolutional_models_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    assert is_convolutional(model_of(name)) is (name in CONVOLUTIONAL)
    assert numerics_of(GPU, name).channels_last is (name in CONVOLUTIONAL)
    assert not numerics_of(CPU, name).channels_last
    assert numerics_of(CPU, name, channels_last=True).memory_format is torch.channels_last
    assert numerics_of(GPU, name, channels_last=False).memory_format is torch.contiguous_format


def test_tf32_is_for_gpus_and_not_for_exact_evaluations() -> None:
    cudnn: Any = torch.backends.cudnn
    matmul, convolutions = torch.backends.cuda.matmul, cudnn.conv
    before = matmul.fp32_precision, convolutions.fp32_precision
    try:
        allow_tf32(CPU)
        assert (matmul.fp32_precision, convolutions.fp32_precision) == before
        allow_tf32(GPU)
        assert matmul.fp32_precision == convolutions.fp32_precision == "tf32"
        with exact_float32():
            assert matmul.fp32_precision == convolutions.fp32_precision == "ieee"
        assert matmul.fp32_precision == convolutions.fp32_precision == "tf32"
    finally:
        matmul.fp32_precision, convolutions.fp32_precision = before


def test_a_model_predicts_in_the_precision_that_is_asked_for() -> None:
    model, images = torch.nn.Linear(64, 3), torch.randn(5, 64)
    batches = [(images, torch.arange(5))]
    ((exact, _),) = predicted_logits(model, batches, Numerics(CPU))
    ((rough, _),) = predicted_logits(model, batches, Numerics(CPU, "bf16"))
    assert exact.tolist() == model(images).tolist()
    assert 0 < abs(rough - exact).max() < 0.05
    assert rough.dtype == exact.dtype


def test_logits_that_overflow_in_half_precision_are_computed_again() -> None:
    model = torch.nn.Linear(4, 2, bias=False)
    with torch.no_grad():
        model.weight.fill_(3e4)
    batches = [(torch.ones(3, 4), torch.zeros(3))]
    ((logits, _),) = predicted_logits(model, batches, Numerics(CPU, "fp16"))
    assert logits.tolist() == [[1.2e5, 1.2e5]] * 3


def test_a_model_without_gradient_checkpointing_is_named() -> None:
    with pytest.raises(ConfigError, match=r"grad_checkpointing: vgg11 has none; leave train\."):
        checkpoint_gradients(model_of("vgg11"), "vgg11")
