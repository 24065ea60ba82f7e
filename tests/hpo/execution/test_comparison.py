import math
from pathlib import Path

import pytest

from hpo.config.loading import load_search_config
from hpo.execution.cluster import TrialResources
from hpo.execution.comparison import fresh_training
from hpo.selection.finalists import retrain_config
from sgformer.config import Metric, TrainConfig

PARAMS = {"optimizer.learning_rate": 1e-3, "model.drop_rate": 0.25}


@pytest.fixture
def train(search_file: Path) -> TrainConfig:
    return retrain_config(load_search_config(search_file)[0], PARAMS, 2)


@pytest.mark.parametrize(
    ("metric", "picked_by", "value", "best_epoch"),
    [
        ("val_top1", "val_top1", 0.75, 2),
        ("val_loss", "val_loss", 0.25, 3),
        ("val_top1", "val_loss", 0.625, 3),  # that of the weights that are kept
    ],
)
def test_a_training_is_kept_with_its_best_epoch_and_what_it_cost(
    train: TrainConfig, metric: Metric, picked_by: Metric, value: float, best_epoch: int
) -> None:
    early_stopping = train.early_stopping.model_copy(update={"metric": picked_by})
    train = train.model_copy(update={"early_stopping": early_stopping})
    rows = [
        {"epoch": i, "seconds": 2.0, "val_top1": top1, "val_loss": loss}
        for i, (top1, loss) in enumerate(
            [(0.5, 0.4), (0.75, 0.3), (0.625, 0.25), (0.75, 0.25), (math.nan, math.nan)], start=1
        )
    ]
    resources = TrialResources(cpus=1, gpus=0.5, num_slots=4, num_processes=2)
    kept = fresh_training(6, train, metric, rows, 6, resources)
    assert (kept.trial, kept.seed) == (6, train.seed)
    assert (kept.value, kept.best_epoch) == (value, best_epoch)
    assert (kept.num_epochs, kept.max_epochs) == (6, 4)  # one was trained twice
    assert (kept.seconds, kept.gpu_seconds) == (12.0, 12.0)


def test_a_training_that_diverged_at_once_has_no_value(train: TrainConfig) -> None:
    rows = [{"epoch": 1, "seconds": 2.0, "val_top1": math.nan}]
    kept = fresh_training(6, train, "val_top1", rows, 1, TrialResources(1, 0, 1))
    assert (kept.value, kept.best_epoch, kept.num_epochs) == (None, None, 1)
