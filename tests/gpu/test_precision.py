"""Tests of number types and memory layouts on a GPU."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sgformer.config import TrainConfig
from sgformer.data.image_data import ImageData
from sgformer.model.build import create_model
from sgformer.optimization.numerics import allow_tf32, exact_float32
from sgformer.training.checkpoint import resume_progress, save_progress
from sgformer.training.trainer import Trainer

pytestmark = pytest.mark.gpu
Configure = Callable[..., TrainConfig]
GPU = torch.device("cuda")


def losses_of(config: TrainConfig, data: ImageData) -> list[float]:
    trainer = Trainer(config, data)
    return [loss for m in trainer.epochs() for loss in (m.train_loss, m.val_loss)]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_like_float32(
    configure: Configure, data: ImageData, precision: str
) -> None:
    expected = losses_of(configure(precision="float32"), data)
    losses = losses_of(configure(precision=precision), data)
    assert losses == pytest.approx(expected, rel=0.1)
    assert losses != expected


def test_auto_takes_what_the_gpu_has(configure: Configure, data: ImageData) -> None:
    trainer = Trainer(configure(), data)
    has_bf16 = torch.cuda.get_device_capability() >= (8, 0)
    assert trainer.numerics.precision == ("bf16" if has_bf16 else "float32")
    next(trainer.epochs())
    assert trainer.history[0].peak_memory_bytes > 0


@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_a_training_resumed_on_a_gpu_goes_on(
    configure: Configure, data: ImageData, tmp_path: Path, precision: str
) -> None:
    config = configure(precision=precision, ema_decay=0.9)
    whole = losses_of(config, data)
    first = Trainer(config, data)
    next(first.epochs())
    save_progress(first, tmp_path)
    second = Trainer(config, data)
    assert resume_progress(second, tmp_path) == ()
    rest = [loss for m in second.epochs() for loss in (m.train_loss, m.val_loss)]
    assert rest == pytest.approx(whole[2:], rel=0.02)  # a GPU adds in no fixed order


def test_a_training_of_a_cpu_goes_on_on_a_gpu(
    configure: Configure, data: ImageData, tmp_path: Path
) -> None:
    on_cpu = configure(device="cpu", precision="float32")
    expected = losses_of(on_cpu, data)
    first = Trainer(on_cpu, data)
    next(first.epochs())
    save_progress(first, tmp_path)
    second = Trainer(configure(precision="float32"), data)
    assert resume_progress(second, tmp_path) == ()
    rest = [loss for m in second.epochs() for loss in (m.train_loss, m.val_loss)]
    assert rest == pytest.approx(expected[2:], rel=0.02)


def test_tf32_is_off_by_little_and_exact_float32_by_less(configure: Configure) -> None:
    config = configure(model={"name": "sg_former_b0"}, data={"image_size": 224})
    model, images = create_model(config, 10).eval(), torch.randn(8, 3, 224, 224)
    with torch.inference_mode():
        expected = model(images).numpy()
        model.to(GPU)
        allow_tf32(GPU)
        rough = model(images.to(GPU)).cpu().numpy()
        with exact_float32():
            exact = model(images.to(GPU)).cpu().numpy()
    scale = expected.std()
    assert np.median(np.abs(exact - expected)) < 1e-4 * scale
    assert np.median(np.abs(rough - expected)) < 2e-2 * scale
    if torch.cuda.get_device_capability() >= (8, 0):
        assert not np.array_equal(rough, exact)


def test_convolutional_models_train_channels_last(configure: Configure, data: ImageData) -> None:
    model = {"name": "resnet18", "drop_path_rate": 0.0}
    auto = Trainer(configure(model=model, precision="float32"), data)
    assert auto.numerics.channels_last
    assert auto.model.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    plain = configure(model=model, precision="float32", channels_last=False)
    losses = [m.train_loss for m in auto.epochs()]
    assert losses[0] == pytest.approx(losses_of(plain, data)[0], rel=0.02)


def test_adamw_is_fused_and_lives_on_the_gpu(configure: Configure, data: ImageData) -> None:
    trainer = Trainer(configure(precision="fp16", optimizer={"max_grad_norm": 1.0}), data)
    next(trainer.epochs())
    tensors, _ = trainer.state_dict()
    steps = [value for name, value in tensors.items() if name.endswith(".step")]
    assert steps
    assert all(step.is_cuda for step in steps)  # torch's other AdamW counts on the CPU
