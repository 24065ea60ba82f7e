"""Scores from counts, against scikit-learn's over the whole split."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.metrics import accuracy_score, f1_score, log_loss, top_k_accuracy_score
from two_processes import count, in_two_processes

from sgformer.training.counts import Counts, Scores


def scores_of(logits: np.ndarray, labels: np.ndarray, batch_size: int = 7) -> Scores:
    counts = Counts(logits.shape[1])
    for start in range(0, len(labels), batch_size):
        rows = slice(start, start + batch_size)
        counts.add(torch.from_numpy(logits[rows]), torch.from_numpy(labels[rows]))
    return counts.scores()


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Float32 logits and labels of a random split; some classes have no image."""
    rng = np.random.default_rng(seed)
    num_classes, num_images = int(rng.integers(2, 40)), int(rng.integers(1, 200))
    logits = rng.normal(0, rng.choice([0.1, 3, 30]), (num_images, num_classes))
    labels = rng.integers(0, rng.integers(1, num_classes + 1), num_images)
    logits[np.arange(num_images), labels] += rng.choice([0, 2])
    return logits.astype(np.float32), labels


@pytest.mark.parametrize("seed", range(40))
def test_scores_are_scikit_learns_whatever_the_batches(seed: int) -> None:
    logits, labels = drawn(seed)
    indices = np.arange(logits.shape[1])
    scores = scores_of(logits, labels, batch_size=1 + seed % 9)
    predicted = logits.argmax(1)
    assert scores.num_images == len(labels)
    assert scores.top1 == accuracy_score(labels, predicted)
    f1 = f1_score(labels, predicted, labels=indices, average="macro", zero_division=0)
    assert scores.macro_f1 == pytest.approx(f1, abs=1e-12)
    shares = softmax(logits.astype(np.float64), axis=1)
    likely = shares[np.arange(len(labels)), labels] > 1e-15  # scikit-learn clips what is not
    if likely.all():
        assert scores.loss == pytest.approx(log_loss(labels, shares, labels=indices), rel=1e-9)
    if len(indices) > 5:
        assert scores.top5 == top_k_accuracy_score(labels, logits, k=5, labels=indices)
    else:
        assert scores.top5 == 1.0


def test_losses_of_many_classes_are_scikit_learns_but_for_rounding() -> None:
    rng = np.random.default_rng(3)
    logits, labels = rng.normal(0, 5, (80, 900)).astype(np.float32), rng.integers(0, 900, 80)
    shares = softmax(logits.astype(np.float64), axis=1)
    expected = log_loss(labels, shares, labels=np.arange(900))
    assert scores_of(logits, labels).loss == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("seed", range(10))
def test_of_equal_logits_that_of_the_first_class_is_the_higher_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.integers(-2, 3, (100, 9)).astype(np.float32)
    labels = rng.integers(0, 9, 100)
    order = np.argsort(-logits, axis=1, kind="stable")
    scores = scores_of(logits, labels)
    assert scores.top1 == (order[:, 0] == labels).mean()
    assert scores.top5 == (order[:, :5] == labels[:, None]).any(1).mean()


def test_a_batch_that_is_counted_in_parts_gives_the_same_scores() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(500, 3000)).astype(np.float32), rng.integers(0, 3000, 500)
    whole, parts = scores_of(logits, labels, batch_size=500), scores_of(logits, labels)
    assert dataclasses.astuple(whole) == pytest.approx(dataclasses.astuple(parts), rel=1e-12)


def test_so_many_classes_that_no_machine_could_hold_their_matrix_are_counted() -> None:
    logits = np.zeros((3, 300_000), dtype=np.float32)
    logits[:, 299_999] = [9, -1, -1]
    scores = scores_of(logits, np.array([299_999, 4, 5]))
    assert (scores.top1, scores.top5) == (1 / 3, 2 / 3)
    assert scores.macro_f1 == pytest.approx(1 / 300_000)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_logit_that_is_not_finite_makes_the_loss_nan(value: float) -> None:
    logits = np.zeros((4, 3), dtype=np.float32)
    assert scores_of(logits, np.arange(4) % 3).loss == pytest.approx(math.log(3))
    logits[1, 2] = value  # not the logit of the image's class
    assert math.isnan(scores_of(logits, np.zeros(4, dtype=np.int64)).loss)
    logits = np.full((4, 3), 3e38, dtype=np.float32)  # whose sum is not finite in float32
    assert scores_of(logits, np.arange(4) % 3).loss == pytest.approx(math.log(3))


@pytest.mark.parametrize("num_images", [7, 1])
def test_images_shared_by_processes_are_counted_once(num_images: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(size=(num_images, 11)), rng.integers(0, 11, num_images)
    alone = dataclasses.astuple(scores_of(logits, labels))
    in_two_processes(count, torch.from_numpy(logits), torch.from_numpy(labels), tmp_path)
    for rank in ("0", "1"):
        together = torch.load(tmp_path / rank)
        assert together[:3] == alone[:3]
        assert together[3] == pytest.approx(alone[3], rel=1e-14)
        assert together[4] == num_images
