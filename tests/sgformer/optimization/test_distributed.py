"""Tests of two torch.distributed processes (gloo) against one; in hpo, Ray starts them."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from two_processes import (
    check_exchange,
    in_two_processes,
    refuse,
    run_out_of_memory,
    train,
)

from sgformer.config import TrainConfig
from sgformer.model.build import create_model
from sgformer.validation import validate

FEATURES = {
    "augmentation": {"policy": "mild", "mixup": 0.5, "cutmix": 0.5},
    "optimizer": {"learning_rate": 1e-3, "batch_size": 18, "max_grad_norm": 1.0},
    "ema_decay": 0.9,
    "class_balance": "loss",
    "max_epochs": 2,
}


def changed(config: TrainConfig, changes: dict) -> TrainConfig:
    values = config.model_dump()
    for name, value in changes.items():
        values[name] = values[name] | value if isinstance(value, dict) else value
    return validate(TrainConfig, values, "test")


def test_processes_exchange_sums_and_numbers() -> None:
    in_two_processes(check_exchange)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        FEATURES,
        FEATURES | {"precision": "bf16"},
        {"class_balance": "sampling", "optimizer": {"batch_size": 19, "micro_batch_size": 3}},
    ],
)
def test_two_processes_train_as_one(
    train_config: TrainConfig, tmp_path: Path, changes: dict
) -> None:
    config = changed(train_config, changes)
    train(config, tmp_path / "one")
    in_two_processes(train, config, tmp_path / "two")
    one, two = (torch.load(tmp_path / name) for name in ("one", "two"))
    tolerance = 2e-2 if changes.get("precision") else 1e-4
    assert torch.allclose(one["rows"][:, :2], two["rows"][:, :2], rtol=tolerance)
    if not changes.get("precision"):
        # Weights agree on average only: AdamW takes little but the sign of a gradient near zero.
        assert (one["weights"] - two["weights"]).abs().mean() < 2e-5
        assert torch.equal(one["rows"][:, 2:], two["rows"][:, 2:])


def test_two_processes_train_as_one_from_pretrained_weights(
    train_config: TrainConfig, tmp_path: Path
) -> None:
    torch.manual_seed(9)
    model, path = create_model(train_config, 7), tmp_path / "weights.safetensors"
    save_file(dict(model.state_dict()), path)
    changes = {"model": {"checkpoint": path}, "max_epochs": 1}
    config = changed(train_config, changes)
    train(config, tmp_path / "one")
    in_two_processes(train, config, tmp_path / "two")
    one, two = (torch.load(tmp_path / name) for name in ("one", "two"))
    assert (one["weights"] - two["weights"]).abs().mean() < 2e-5
    train(changed(train_config, {"max_epochs": 1}), tmp_path / "new")
    new = torch.load(tmp_path / "new")["weights"]
    assert (one["weights"] - new).abs().mean() > 1e-3


def test_when_a_process_runs_out_of_memory_the_other_does_not_wait_for_it(
    train_config: TrainConfig,
) -> None:
    in_two_processes(run_out_of_memory, train_config)


def test_a_batch_too_small_to_be_shared_is_refused(train_config: TrainConfig) -> None:
    in_two_processes(refuse, changed(train_config, {"optimizer": {"batch_size": 3}}))
