"""Tests of a small ResNet, which has BatchNorm, where it differs from SG-Former in training."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from configs import changed
from timm.layers import convert_sync_batchnorm
from torch import nn
from two_processes import check_equal_states, in_two_processes

from sgformer.config import TrainConfig
from sgformer.data.image_data import ImageData, load_image_data
from sgformer.errors import OutOfMemoryError
from sgformer.model.build import create_model
from sgformer.optimization.batch_norm import (
    StatisticsImages,
    average_statistics,
    is_synchronised,
    recompute_statistics,
    synchronised,
)
from sgformer.optimization.numerics import checkpoint_gradients
from sgformer.optimization.optimizer_step import OptimizerStep
from sgformer.training.trainer import Trainer


@pytest.fixture
def resnet_config(train_config: TrainConfig) -> TrainConfig:
    """Two epochs of a small ResNet, whose last maps have one pixel."""
    return changed(train_config, model={"name": "test_resnet"}, max_epochs=2)


@pytest.fixture
def data(train_config: TrainConfig) -> ImageData:
    return load_image_data(train_config.data)


def new_step(config: TrainConfig) -> OptimizerStep:
    torch.manual_seed(0)
    samples = np.zeros((8, 2), np.int64)
    return OptimizerStep(create_model(config, 10), 10, config, samples, torch.device("cpu"))


def run_a_step(step: OptimizerStep, number: int, micro_batch_size: int = 8) -> torch.Tensor:
    """Runs a step on the same eight images of noise; returns the loss."""
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return step.run(
        images, torch.arange(8), seed=number, number=number, learning_rate=0.001,
        batch_size=8, micro_batch_size=micro_batch_size,
    )  # fmt: skip


@pytest.mark.parametrize("micro_batch_size", [1, 2, 19])
def test_no_micro_batch_of_one_image_ends_a_training(
    resnet_config: TrainConfig, data: ImageData, micro_batch_size: int
) -> None:
    optimizer = {"batch_size": 20, "micro_batch_size": micro_batch_size}
    trainer = Trainer(changed(resnet_config, optimizer=optimizer, max_epochs=1), data)
    list(trainer.epochs())
    assert trainer.end_reason == "completed"


def test_the_number_of_images_behind_the_statistics_is_told(
    resnet_config: TrainConfig, data: ImageData
) -> None:
    assert Trainer(resnet_config, data).statistics_images == StatisticsImages(20, 20)
    seven = changed(resnet_config, optimizer={"batch_size": 7, "micro_batch_size": 1})
    assert Trainer(seven, data).statistics_images == StatisticsImages(2, 2)
    vit = changed(resnet_config, model={"name": "test_vit"})
    assert Trainer(vit, data).statistics_images is None


def test_halved_micro_batches_are_told(resnet_config: TrainConfig, data: ImageData) -> None:
    trainer = Trainer(resnet_config, data)

    def run_out_of_memory(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if model.training and len(inputs[0]) > 10:
            raise MemoryError

    trainer.model.register_forward_pre_hook(run_out_of_memory)
    next(trainer.epochs())
    assert trainer.statistics_images == StatisticsImages(10, 20)


@pytest.mark.parametrize(("batch_size", "tried", "fewest"), [(4, [4, 2], 2), (7, [7, 4, 3], 3)])
def test_the_smallest_micro_batch_that_does_not_fit_is_tried_once(
    resnet_config: TrainConfig, data: ImageData, batch_size: int, tried: list[int], fewest: int
) -> None:
    trainer = Trainer(changed(resnet_config, optimizer={"batch_size": batch_size}), data)
    sizes = []

    def run_out_of_memory(_model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        sizes.append(len(inputs[0]))
        raise MemoryError

    trainer.model.register_forward_pre_hook(run_out_of_memory)
    with pytest.raises(
        OutOfMemoryError, match=rf"not even {fewest} images at .*fit into.*cpu: te"
    ):
        next(trainer.epochs())
    assert sizes == tried


def test_averaged_weights_come_with_averaged_statistics(resnet_config: TrainConfig) -> None:
    decay = 0.5
    config = changed(resnet_config, ema_decay=decay)
    samples = np.zeros((8, 2), np.int64)
    step = OptimizerStep(create_model(config, 10), 10, config, samples, torch.device("cpu"))
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8)
    mean: dict[str, torch.Tensor] = {}
    for number in range(1, 5):
        step.run(
            images, labels, seed=number, number=number, learning_rate=0.1,
            batch_size=8, micro_batch_size=8,
        )  # fmt: skip
        kept = min(decay, 1 - number ** (-2 / 3))  # timm's warm-up: the first step is taken over
        for name, value in step.model.state_dict().items():
            mean[name] = kept * mean.get(name, value) + (1 - kept) * value
    assert step.ema is not None
    averaged = step.ema.module.state_dict()
    for name, value in step.model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            assert averaged[name] == value == 4
        else:
            assert torch.allclose(averaged[name], mean[name], rtol=1e-4, atol=1e-6), name
            assert torch.equal(averaged[name], value) == torch.equal(mean[name], value), name


def test_the_metrics_are_those_of_the_averaged_model(
    resnet_config: TrainConfig, data: ImageData
) -> None:
    trainer = Trainer(changed(resnet_config, ema_decay=0.9), data)
    *_, last = trainer.epochs()
    metrics = trainer.evaluate("val")
    assert (metrics.top1, metrics.loss) == (last.val_top1, last.val_loss)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
def test_a_synchronised_model_is_the_same_model(name: str, resnet_config: TrainConfig) -> None:
    model = create_model(changed(resnet_config, model={"name": name}), 10).eval()
    assert synchronised(model) is model  # on a CPU, in one process
    assert not is_synchronised(model)
    images = torch.randn(2, 3, 32, 32)
    expected, names = model(images), list(model.state_dict())
    converted = convert_sync_batchnorm(model)
    assert is_synchronised(converted)
    assert list(converted.state_dict()) == names
    assert torch.equal(converted(images), expected)


@pytest.mark.parametrize("name", ["test_resnet", "mobilenetv3_small_050"])
def test_gradient_checkpointing_updates_the_statistics_once_a_step(
    name: str, resnet_config: TrainConfig
) -> None:
    states = []
    for on in (False, True):
        config = changed(resnet_config, model={"name": name}, grad_checkpointing=on)
        step = new_step(config)
        if on:
            checkpoint_gradients(step.model, name)
        for number in (1, 2):
            run_a_step(step, number, micro_batch_size=4)
        states.append(step.model.state_dict())
    for tensor, thrifty in zip(*(state.values() for state in states), strict=True):
        assert torch.allclose(tensor, thrifty, rtol=1e-4, atol=1e-5)


def test_an_overflow_in_half_precision_leaves_no_trace(resnet_config: TrainConfig) -> None:
    step = new_step(changed(resnet_config, precision="fp16", ema_decay=0.5))
    run_a_step(step, 1)
    before = {name: tensor.clone() for name, tensor in step.model.state_dict().items()}

    def overflow(_norm: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        return (inputs[0] * torch.inf,)

    *_, last = (module for module in step.model.modules() if isinstance(module, nn.BatchNorm2d))
    handle = last.register_forward_pre_hook(overflow)
    assert not run_a_step(step, 2).isfinite()
    handle.remove()
    assert torch.equal(step.model.state_dict()["fc.weight"], before["fc.weight"])  # skipped
    assert last.running_mean is not None
    assert any(torch.equal(last.running_mean, tensor) for tensor in before.values())
    assert step.ema is not None
    for model in (step.model, step.ema.module):
        assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
    assert run_a_step(step, 3).isfinite()


def test_one_process_keeps_its_statistics() -> None:
    norm = nn.BatchNorm2d(3)
    norm.running_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    average_statistics(norm)
    assert norm.running_mean.tolist() == [1.0, 2.0, 3.0]


def test_all_processes_have_the_same_statistics(resnet_config: TrainConfig) -> None:
    optimizer = {"batch_size": 18, "micro_batch_size": 4}
    config = changed(resnet_config, optimizer=optimizer, ema_decay=0.9)
    in_two_processes(check_equal_states, config)


def test_statistics_of_a_soup_are_those_of_the_images_it_is_shown() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5))
    images = 3 + 2 * torch.randn(40, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    recompute_statistics(model, images.split(20))
    norm = model[0]
    torch.testing.assert_close(norm.running_mean, images.mean((0, 2, 3)))
    expected = torch.stack([part.var((0, 2, 3)) for part in images.split(20)]).mean(0)
    torch.testing.assert_close(norm.running_var, expected)
    assert norm.momentum == 0.1
    assert not any(module.training for module in model.modules())


def test_a_soup_without_batch_norm_asks_for_no_image() -> None:
    def refuse() -> Iterator[torch.Tensor]:
        raise AssertionError("no image is needed")
        yield

    recompute_statistics(nn.Linear(2, 2), refuse())
