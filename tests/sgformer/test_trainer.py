import math

import numpy as np
import pytest
import torch

from sgformer.config import TrainConfig, validate
from sgformer.decoded_images import ImageData, load_image_data
from sgformer.errors import ConfigError
from sgformer.trainer import EpochMetrics, Trainer, choose_device


@pytest.fixture
def data(train_config: TrainConfig) -> ImageData:
    return load_image_data(train_config.data)


def change(config: TrainConfig, **sections: dict) -> TrainConfig:
    values = config.model_dump()
    for name, section in sections.items():
        values[name] = values[name] | section if isinstance(values[name], dict) else section
    return validate(TrainConfig, values, "test")


def without_time(history: list[EpochMetrics]) -> list[tuple[float, ...]]:
    return [(m.epoch, m.train_loss, m.val_loss, m.val_top1, m.learning_rate) for m in history]


def test_it_trains_an_epoch_a_step_to_its_length(
    train_config: TrainConfig, data: ImageData
) -> None:
    trainer = Trainer(train_config, data)
    epochs = trainer.epochs()
    assert next(epochs).epoch == 1
    assert trainer.end_reason is None
    assert [metrics.epoch for metrics in epochs] == [2, 3]
    assert trainer.end_reason == "completed"
    assert all(m.seconds > 0 and m.images_per_second > 0 for m in trainer.history)


def test_it_learns_digits(train_config: TrainConfig, data: ImageData) -> None:
    trainer = Trainer(change(train_config, max_epochs=12, early_stopping={"patience": None}), data)
    losses = [metrics.train_loss for metrics in trainer.epochs()]
    assert losses[-1] < losses[0] - 0.5
    assert trainer.evaluate("val").top1 > 0.5


def test_the_last_epochs_metrics_are_those_of_the_model(
    train_config: TrainConfig, data: ImageData
) -> None:
    trainer = Trainer(train_config, data)
    *_, last = trainer.epochs()
    metrics = trainer.evaluate("val")
    assert (metrics.top1, metrics.loss) == (last.val_top1, last.val_loss)


def test_the_same_seed_gives_the_same_curve_and_another_one_another(
    train_config: TrainConfig, data: ImageData
) -> None:
    curves = []
    for seed in (0, 0, 1):
        trainer = Trainer(change(train_config, seed=seed, max_epochs=1), data)  # type: ignore[arg-type]
        list(trainer.epochs())
        curves.append(without_time(trainer.history))
    assert curves[0] == curves[1] != curves[2]


@pytest.mark.parametrize("stop_after", [1, 2])
def test_a_resumed_training_goes_on_as_if_never_stopped(
    train_config: TrainConfig, data: ImageData, stop_after: int
) -> None:
    config = change(train_config, model={"drop_rate": 0.2, "attn_drop_rate": 0.1})
    whole = Trainer(config, data)
    list(whole.epochs())
    first = Trainer(config, data)
    for _ in range(stop_after):
        next(first.epochs())
    second = Trainer(config, data)
    second.load_state_dict(*first.state_dict())
    list(second.epochs())
    assert without_time(second.history) == without_time(whole.history)
    for name, expected in whole.model.state_dict().items():
        assert torch.equal(second.model.state_dict()[name], expected), name


def test_it_stops_early(train_config: TrainConfig, data: ImageData) -> None:
    config = change(train_config, max_epochs=9, early_stopping={"patience": 1, "min_delta": 1.0})  # type: ignore[arg-type]
    trainer = Trainer(config, data)
    assert len(list(trainer.epochs())) == 2
    assert trainer.end_reason == "early_stopped"


def test_a_loss_that_is_not_finite_ends_it_as_diverged(
    train_config: TrainConfig, data: ImageData
) -> None:
    config = change(train_config, optimizer={"learning_rate": 1e30, "warmup_epochs": 0})
    trainer = Trainer(config, data)
    *_, last = trainer.epochs()
    assert trainer.end_reason == "diverged"
    assert math.isnan(last.val_top1)
    assert len(trainer.history) < 3


def test_every_way_of_dropping_reaches_the_model(
    train_config: TrainConfig, data: ImageData
) -> None:
    rates = {"drop_rate": 0.1, "proj_drop_rate": 0.2, "attn_drop_rate": 0.3, "drop_path_rate": 0.4}
    model = Trainer(change(train_config, model=rates), data).model
    dropouts = {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)}
    assert dropouts == {0.1, 0.2, 0.3}
    assert model.stages[3].blocks[0].drop_path.drop_prob == pytest.approx(0.4)
    assert model.stages[3].blocks[0].attn.attn_drop == 0.3


def test_the_description_rebuilds_what_was_trained(
    train_config: TrainConfig, data: ImageData
) -> None:
    description = Trainer(train_config, data).description()
    assert TrainConfig.model_validate(description["config"]) == train_config
    assert description["classes"] == [str(d) for d in range(10)]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_where_there_is_none_is_refused(train_config: TrainConfig) -> None:
    with pytest.raises(ConfigError, match="device: cuda is asked for, and this machine has no"):
        choose_device(change(train_config, device="cuda"))  # type: ignore[arg-type]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_it_trains_on_a_gpu(train_config: TrainConfig, data: ImageData) -> None:
    trainer = Trainer(change(train_config, device="cuda"), data)  # type: ignore[arg-type]
    assert all(np.isfinite(m.train_loss) for m in trainer.epochs())
    assert trainer.device.type == "cuda"
