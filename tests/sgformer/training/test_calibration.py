"""Calibration from counts, against cases computed by hand and against a plain loop."""

import math

import numpy as np
import pytest
import torch
from scipy.special import softmax

from sgformer.training.calibration import Calibration, CalibrationBin, calibration_of
from sgformer.training.counts import Counts
from sgformer.training.evaluation import split_metrics


def of_logits(logits: np.ndarray, labels: np.ndarray, batch_size: int = 3) -> Calibration:
    counts = Counts(logits.shape[1], keeps_pairs=True)
    for start in range(0, len(labels), batch_size):
        rows = slice(start, start + batch_size)
        counts.add(torch.from_numpy(logits[rows]), torch.from_numpy(labels[rows]))
    classes = tuple(f"class {i}" for i in range(logits.shape[1]))
    return split_metrics(counts, classes).calibration


def test_the_numbers_are_those_computed_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1], [0.92, 0.08], [0.08, 0.92], [0.55, 0.45], [0.41, 0.59]])
    labels = np.array([0, 0, 0, 0, 1])
    found = of_logits(np.log(probabilities), labels)
    # Of 15 bins the ninth ends at 0.6, and the fourteenth reaches from 0.867 to 0.933.
    low, high = found.bins
    assert (low.num_images, high.num_images) == (2, 3)
    assert (low.confidence, low.accuracy) == pytest.approx((0.57, 1.0))
    assert (high.confidence, high.accuracy) == pytest.approx((2.74 / 3, 2 / 3))
    assert found.ece == pytest.approx((2 * (1 - 0.57) + 3 * (2.74 / 3 - 2 / 3)) / 5)


def test_a_model_that_is_always_sure_is_off_by_its_errors() -> None:
    logits = np.full((4, 3), -1000.0, dtype=np.float32)
    logits[:, 2] = 1000.0
    found = of_logits(logits, np.array([2, 2, 2, 0]))
    assert found == Calibration(0.25, (CalibrationBin(1.0, 0.75, 4),))


def test_a_bin_has_its_upper_end() -> None:
    found = calibration_of(np.array([8.5, 9.0, 9.001, 15.0]) / 15, np.array([1, 1, 1, 0]) == 1)
    assert [(one.num_images, one.accuracy) for one in found.bins] == [(2, 1.0), (1, 1.0), (1, 0.0)]


@pytest.mark.parametrize(("seed", "num_classes"), [(0, 2), (1, 11), (2, 400)])
def test_any_split_gives_what_a_plain_loop_gives(seed: int, num_classes: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 4, (300, num_classes)).astype(np.float32)
    labels = np.where(rng.random(300) < 0.5, logits.argmax(1), rng.integers(0, num_classes, 300))
    found = of_logits(logits, labels, batch_size=41)
    confidences = softmax(logits.astype(np.float64), axis=1).max(1)
    is_right, ece, bins = logits.argmax(1) == labels, 0.0, []
    for i in range(15):
        inside = (confidences > i / 15) & (confidences <= (i + 1) / 15)
        if inside.any():
            bins.append((confidences[inside].mean(), is_right[inside].mean(), inside.sum()))
            ece += abs(bins[-1][0] - bins[-1][1]) * inside.mean()
    assert found.ece == pytest.approx(ece, abs=1e-6)
    for one, expected in zip(found.bins, bins, strict=True):
        told = (one.confidence, one.accuracy, one.num_images)
        assert told == pytest.approx(expected, abs=1e-6)


def test_a_logit_that_is_not_finite_makes_the_error_nan() -> None:
    logits = np.array([[math.nan, 0.0], [1.0, 0.0]], dtype=np.float32)
    assert math.isnan(of_logits(logits, np.array([0, 0])).ece)
