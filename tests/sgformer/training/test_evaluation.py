import dataclasses

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)

from sgformer.optimization.numerics import Numerics
from sgformer.training.evaluation import compute_metrics, predict_logits

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("num_classes", [2, 3, 6, 10])
def test_metrics_are_scikit_learns(num_classes: int) -> None:
    labels = RNG.integers(0, num_classes - 1, 50)  # the last class is absent
    logits = RNG.standard_normal((50, num_classes))
    classes = tuple("abcdefghij"[:num_classes])
    metrics = compute_metrics(logits, labels, classes)
    predicted, indices = logits.argmax(1), range(num_classes)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert metrics.top1 == accuracy_score(labels, predicted)
    assert metrics.macro_f1 == pytest.approx(
        f1_score(labels, predicted, labels=indices, average="macro", zero_division=0)
    )
    assert metrics.loss == pytest.approx(log_loss(labels, probabilities, labels=list(indices)))
    assert metrics.confusion_matrix == confusion_matrix(labels, predicted, labels=indices).tolist()
    assert metrics.num_images == sum(c.support for c in metrics.per_class.values()) == 50
    per_class = precision_recall_fscore_support(labels, predicted, labels=indices, zero_division=0)
    for i, name in enumerate(classes):
        expected = [float(column[i]) for column in per_class]
        assert dataclasses.astuple(metrics.per_class[name]) == pytest.approx(expected)
    assert metrics.per_class[classes[-1]].support == 0
    if num_classes > 5:
        top5 = top_k_accuracy_score(labels, logits, k=5, labels=indices)
        assert metrics.top5 == pytest.approx(top5)


def test_top5_looks_at_five() -> None:
    logits = np.tile(np.arange(6.0, 0, -1), (6, 1))  # ranks classes 0, 1, 2, 3, 4, 5
    metrics = compute_metrics(logits, np.arange(6), tuple("abcdef"))
    assert metrics.top1 == pytest.approx(1 / 6)
    assert metrics.top5 == pytest.approx(5 / 6)


def test_with_five_classes_or_fewer_top5_is_one() -> None:
    logits = np.tile(np.arange(5.0), (5, 1))
    assert compute_metrics(logits, np.arange(5), tuple("abcde")).top5 == 1.0


def test_predictions_keep_the_order_whatever_the_batch_size() -> None:
    model = torch.nn.Flatten()
    images = torch.arange(7.0).reshape(7, 1)
    dataset = torch.utils.data.TensorDataset(images, torch.arange(7))
    for batch_size in (1, 3, 8):
        loader = torch.utils.data.DataLoader(dataset, batch_size)
        logits, labels = predict_logits(model, loader, Numerics(torch.device("cpu")))
        assert logits[:, 0].tolist() == labels.tolist() == list(range(7))
