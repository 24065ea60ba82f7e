"""Comparison of models image by image, by which members of soups and ensembles are judged."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from sgformer.config import Metric
from sgformer.export.judge import paired_drop
from sgformer.training.counts import Counts
from sgformer.training.outcomes import Outcomes, paired_gain

METRICS: tuple[Metric, ...] = ("val_top1", "val_top5", "val_macro_f1", "val_loss")


def outcomes(seed: int, sureness: float, num: int = 400, num_classes: int = 8) -> Outcomes:
    """The outcomes of made logits, which are right more often the surer they are."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num) % num_classes
    logits = torch.randn(num, num_classes, generator=generator)
    logits[torch.arange(num), labels] += sureness
    return Outcomes.of(zip(logits.split(64), labels.split(64), strict=True))


def test_the_values_are_those_of_a_delivery() -> None:
    generator = torch.Generator().manual_seed(0)
    labels, logits = torch.arange(90) % 7, torch.randn(90, 7, generator=generator)
    found, counts = Outcomes.of([(logits, labels)]), Counts(7)
    counts.add(logits, labels)
    scores = counts.scores()
    for metric in METRICS:
        expected = getattr(scores, metric.removeprefix("val_"))
        assert found.value(metric) == pytest.approx(expected, rel=1e-6)
    expected = f1_score(labels, found.predicted, average="macro")
    assert found.value("val_macro_f1") == pytest.approx(expected)


@pytest.mark.parametrize("metric", METRICS)
def test_a_better_model_gains_and_a_worse_one_loses(metric: Metric) -> None:
    weak, strong = outcomes(1, 0.5), outcomes(2, 3.0)
    up, down = paired_gain(weak, strong, metric), paired_gain(strong, weak, metric)
    assert 0 < up.low < up.mean < up.high
    assert down.mean == pytest.approx(-up.mean)
    assert down.high < 0
    assert strong.score(metric) > weak.score(metric)


@pytest.mark.parametrize("metric", METRICS)
def test_a_model_gains_nothing_over_itself(metric: Metric) -> None:
    gain = paired_gain(outcomes(1, 1.0), outcomes(1, 1.0), metric)
    assert gain.mean == 0
    assert gain.low <= 0 <= gain.high


def test_the_interval_of_a_share_is_that_of_paired_shares() -> None:
    before, after = outcomes(1, 1.0), outcomes(2, 1.0)
    gain = paired_gain(before, after, "val_top1")
    drop = paired_drop(before.predicted == before.labels, after.predicted == after.labels)
    assert (gain.mean, gain.low, gain.high) == pytest.approx((-drop.mean, -drop.high, -drop.low))


def test_of_equal_metrics_the_smaller_loss_scores_higher() -> None:
    labels = torch.zeros(4, dtype=torch.int64)
    sure, unsure = torch.tensor([[3.0, 0.0]] * 4), torch.tensor([[1.0, 0.0]] * 4)
    better, worse = (Outcomes.of([(logits, labels)]) for logits in (sure, unsure))
    assert better.value("val_top1") == worse.value("val_top1")
    assert better.score("val_top1") > worse.score("val_top1")


def test_logits_that_are_not_finite_gain_nothing() -> None:
    sound = outcomes(1, 1.0)
    broken = Outcomes.of([(torch.full((400, 8), math.nan), torch.arange(400) % 8)])
    assert np.isnan(broken.losses).all()
    assert not paired_gain(sound, broken, "val_loss").low > 0
    assert not broken.score("val_loss") >= sound.score("val_loss")
