import math
from pathlib import Path

from hpo.retrain import retrain_epochs
from hpo.training import Training
from sgformer.config import TrainConfig, validate


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
