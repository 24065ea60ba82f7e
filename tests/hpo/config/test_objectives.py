import math

import pytest

from hpo.config.objectives import COSTS, METRICS, Constraint, Objective
from sgformer.errors import ConfigError
from sgformer.validation import validate


@pytest.mark.parametrize(
    ("text", "value", "violation"),
    [
        ("latency_ms <= 5", 7.5, 0.5),
        ("latency_ms <= 5", 4.0, -0.2),
        ("latency_ms<=5", 5.0, 0.0),
        ("num_parameters <= 2e7", 4e7, 1.0),
        ("val_top1 >= 0.8", 0.6, 0.25),
        ("bytes <= 5e6", 6e6, 0.2),
        ("int8_top1_drop <= 0.005", 0.01, 1.0),
        ("val_loss <= 0", 0.25, 0.25),
    ],
)
def test_a_bound_is_missed_by_a_share_of_it(text: str, value: float, violation: float) -> None:
    assert Constraint.model_validate(text).violation(value) == pytest.approx(violation)


@pytest.mark.parametrize("text", ["latency_ms <= 5.0", "val_top1 >= 0.123456789"])
def test_a_constraint_is_dumped_as_it_is_written(text: str) -> None:
    assert Constraint.model_validate(text).model_dump() == text


def test_a_constraint_is_shown_briefly() -> None:
    assert (
        str(Constraint.model_validate("num_parameters <= 2e7")) == "num_parameters <= 20,000,000"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("latency_ms < 5", r"expected 'NAME <= NUMBER' or 'NAME >= NUMBER'.*got 'latency_ms < 5'"),
        ("latency_ms <= low", r"expected 'NAME <= NUMBER'.*got 'latency_ms <= low'"),
        (["latency_ms", 5], r"expected 'NAME <= NUMBER'.*got \['latency_ms', 5\]"),
        ("latency <= 5", r"no such objective: 'latency'; nearest known: latency_ms"),
        ("latency_ms <= nan", r"finite number"),
    ],
)
def test_what_is_no_constraint_is_refused(text: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(Constraint, text, "here")


def test_only_accuracies_are_to_be_maximised() -> None:
    directions = [Objective.named(name).direction for name in (*METRICS, *COSTS)]
    assert directions == ["maximize"] * 3 + ["minimize"] * 5


def test_the_best_of_values_is_by_the_direction_and_never_nan() -> None:
    curve = {1: math.nan, 2: 0.4, 3: 0.7, 4: 0.7, 5: 0.2}
    accuracy, loss = Objective.named("val_top1"), Objective.named("val_loss")
    assert (accuracy.best_key(curve), loss.best_key(curve)) == (3, 5)
    assert (accuracy.best([0.4, 0.7]), loss.best([0.4, 0.7])) == (0.7, 0.4)
    assert (accuracy.best_epoch(curve), loss.best_epoch(curve)) == (4, 5)
    assert accuracy.best_key({1: math.nan}) is accuracy.best_epoch({1: math.nan}) is None
    assert (accuracy.loss(0.7), loss.loss(0.7)) == (-0.7, 0.7)
