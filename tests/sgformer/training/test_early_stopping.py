import math

import pytest

from sgformer.config import EarlyStoppingConfig
from sgformer.training.early_stopping import EarlyStopping


def run(values: list[float], **config: object) -> tuple[int | None, EarlyStopping]:
    """The epoch at which the training stops (None: never), and the EarlyStopping then."""
    stopping = EarlyStopping(EarlyStoppingConfig(**config))  # type: ignore[arg-type]
    for epoch, value in enumerate(values, 1):
        stopping.update(epoch, value)
        if stopping.should_stop:
            return epoch, stopping
    return None, stopping


@pytest.mark.parametrize(
    ("values", "config", "expected"),
    [
        ([0.1, 0.2, 0.2, 0.2], {"patience": 2}, 4),
        ([0.1, 0.2, 0.2, 0.3, 0.3], {"patience": 2}, None),
        ([0.1, 0.25, 0.3, 0.34], {"patience": 2, "min_delta": 0.1}, 4),
        ([1.0, 0.9, 0.95, 0.95], {"patience": 2, "metric": "val_loss"}, 4),
        ([0.5, 0.4, 0.3, 0.2], {"patience": None}, None),
        ([0.5, math.nan, math.nan], {"patience": 2}, 3),
        ([0.5, 0.4, 0.4, 0.4, 0.4], {"patience": 2, "warmup_epochs": 3}, 5),
        ([0.5, 0.4, 0.4, 0.6, 0.4], {"patience": 2, "warmup_epochs": 3}, None),
    ],
)
def test_it_stops_after_patience_epochs_without_a_gain(
    values: list[float], config: dict, expected: int | None
) -> None:
    assert run(values, **config)[0] == expected


def test_small_gains_count_for_the_best_though_not_for_patience() -> None:
    _, stopping = run([0.50, 0.55, 0.58], patience=5, min_delta=0.1)
    assert (stopping.best_epoch, stopping.best_value) == (3, 0.58)
    assert stopping.num_epochs_without_gain == 2


def test_the_last_of_equal_epochs_is_the_best() -> None:
    _, stopping = run([0.1, 0.3, 0.3, math.nan, 0.2], patience=5)
    assert stopping.best_epoch == 3
    assert stopping.num_epochs_without_gain == 3  # of 0.3 by epoch 2


def test_its_state_moves_to_another() -> None:
    _, stopping = run([0.1, 0.3, 0.2], patience=2)
    other = EarlyStopping(EarlyStoppingConfig(patience=2))
    other.load_state_dict(stopping.state_dict())
    other.update(4, 0.2)
    assert other.should_stop
    assert other.best_epoch == 2
