"""Tests of torch.compile on a GPU."""

import functools
from collections.abc import Callable

import pytest
import torch

from sgformer.config import TrainConfig
from sgformer.data.image_data import ImageData
from sgformer.training.trainer import Trainer

pytestmark = pytest.mark.gpu
Configure = Callable[..., TrainConfig]


def test_a_compiled_training_is_the_same_up_to_rounding(
    configure: Configure, data: ImageData
) -> None:
    (plain,) = Trainer(configure(max_epochs=1, precision="float32"), data).epochs()
    trainer = Trainer(configure(max_epochs=1, precision="float32", compile=True), data)
    (compiled,) = trainer.epochs()
    assert trainer.is_compiled
    assert compiled.train_loss == pytest.approx(plain.train_loss, rel=1e-2)


def test_twelve_configurations_in_a_process_are_all_compiled(
    configure: Configure, data: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without the code generator, which takes minutes; the limits are dynamo's.
    compile_fast = functools.partial(torch.compile, backend="eager")
    monkeypatch.setattr(torch, "compile", compile_fast)
    are_compiled = []
    for i in range(12):
        config = configure(max_epochs=1, compile=True, model={"drop_rate": 0.02 * i})
        trainer = Trainer(config, data)
        next(trainer.epochs())
        are_compiled.append(trainer.is_compiled)
    assert are_compiled == [True] * 12
