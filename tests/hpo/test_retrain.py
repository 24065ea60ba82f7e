import math
from pathlib import Path

import pytest

from hpo.config import load_search_config
from hpo.retrain import retrain_config, retrain_epochs
from hpo.training import Training
from sgformer.config import TrainConfig, validate

PARAMS = {"optimizer.learning_rate": 1e-3, "model.drop_rate": 0.25}


@pytest.mark.parametrize(("override", "epochs"), [(None, 4), ("retrain.max_epochs=9", 9)])
def test_the_winner_trains_at_full_length_on_a_fresh_seed(
    search_file: Path, override: str | None, epochs: int
) -> None:
    config, _ = load_search_config(search_file, [override] if override else [])
    train = retrain_config(config, PARAMS)
    assert (train.max_epochs, train.seed) == (epochs, config.train.seed + 1)
    assert (train.optimizer.learning_rate, train.model.drop_rate) == (1e-3, 0.25)
    assert train.data.val_seed == config.train.data.val_seed


def test_an_interrupted_retraining_goes_on(train_config: TrainConfig, tmp_path: Path) -> None:
    rows = retrain_epochs(Training(train_config, tmp_path))
    first = [next(rows), next(rows)]
    rows.close()  # type: ignore[attr-defined]
    resumed = list(retrain_epochs(Training(train_config, tmp_path)))
    assert [row["epoch"] for row in resumed] == [1, 2, 3]
    assert resumed[:1] == first[:1]
    assert (tmp_path / "best.safetensors").exists()


def test_a_retraining_that_diverges_at_once_leaves_no_model(
    train_config: TrainConfig, tmp_path: Path
) -> None:
    values = train_config.model_dump()
    values["optimizer"] |= {"learning_rate": 1e30, "warmup_epochs": 0}
    config = validate(TrainConfig, values, "test")
    rows = list(retrain_epochs(Training(config, tmp_path)))
    assert math.isnan(rows[-1]["val_loss"])
    assert not (tmp_path / "best.safetensors").exists()


@pytest.mark.parametrize(("gpus", "device"), [(0, "cpu"), (None, "auto")])
def test_trials_without_a_gpu_are_retrained_without_one(
    search_file: Path, gpus: int | None, device: str
) -> None:
    overrides = [f"resources.gpus_per_trial={'null' if gpus is None else gpus}"]
    config, _ = load_search_config(search_file, [*overrides, "train.device=auto"])
    assert retrain_config(config, PARAMS).device == device
