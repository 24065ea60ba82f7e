import dataclasses
import json

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from sgformer.optimization.numerics import Numerics
from sgformer.training.counts import Counts
from sgformer.training.evaluation import Confusion, SplitMetrics, predicted_logits, split_metrics

RNG = np.random.default_rng(0)


def metrics_of(logits: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> SplitMetrics:
    """The metrics of a split in two batches."""
    counts = Counts(len(classes), keeps_pairs=True)
    for rows in (slice(20), slice(20, None)):
        counts.add(torch.from_numpy(logits[rows]), torch.from_numpy(labels[rows]))
    return split_metrics(counts, classes)


@pytest.mark.parametrize("num_classes", [2, 3, 6, 10])
def test_metrics_are_scikit_learns(num_classes: int) -> None:
    labels = RNG.integers(0, num_classes - 1, 50)  # the last class is absent
    logits = RNG.standard_normal((50, num_classes))
    classes = tuple("abcdefghij"[:num_classes])
    metrics = metrics_of(logits, labels, classes)
    predicted, indices = logits.argmax(1), range(num_classes)
    expected = confusion_matrix(labels, predicted, labels=indices)
    assert metrics.confusion_matrix == expected.tolist()
    assert metrics.num_images == sum(c.support for c in metrics.per_class.values()) == 50
    assert metrics.top1 == (predicted == labels).mean()
    per_class = precision_recall_fscore_support(labels, predicted, labels=indices, zero_division=0)
    for i, name in enumerate(classes):
        of_class = [float(column[i]) for column in per_class]
        assert dataclasses.astuple(metrics.per_class[name]) == pytest.approx(of_class)
    assert metrics.per_class[classes[-1]].support == 0
    for one in metrics.most_confused:
        true, wrong = classes.index(one.true), classes.index(one.predicted)
        assert one.num_images == expected[true, wrong] > 0
        assert true != wrong
    nums = [one.num_images for one in metrics.most_confused]
    assert nums == sorted(nums, reverse=True)
    assert sum(nums) == 50 - expected.trace()


@pytest.mark.parametrize(("num_classes", "has_matrix"), [(200, True), (201, False)])
def test_beyond_two_hundred_classes_there_is_no_matrix(num_classes: int, has_matrix: bool) -> None:
    labels = np.array([3] * 4 + [7, 5, 5])
    logits = np.eye(num_classes)[[3, 8, 8, 9, 8, 5, 4]]
    classes = tuple(f"class {i}" for i in range(num_classes))
    metrics = metrics_of(logits, labels, classes)
    assert (metrics.confusion_matrix is not None) is has_matrix
    assert metrics.most_confused == (
        Confusion("class 3", "class 8", 2),
        Confusion("class 3", "class 9", 1),
        Confusion("class 5", "class 4", 1),
        Confusion("class 7", "class 8", 1),
    )


def test_metrics_of_ten_thousand_classes_are_a_file_of_two_megabytes() -> None:
    num_classes = 10_000
    counts = Counts(num_classes, keeps_pairs=True)
    for _ in range(4):
        labels, predicted = torch.from_numpy(RNG.integers(0, num_classes, (2, 500)))
        counts.add(torch.nn.functional.one_hot(predicted, num_classes).float(), labels)
    metrics = split_metrics(counts, tuple(f"n{i:08d}" for i in range(num_classes)))
    assert len(metrics.most_confused) == 100
    assert len(json.dumps(dataclasses.asdict(metrics), indent=2)) < 2e6


def test_predictions_keep_the_order_whatever_the_batch_size() -> None:
    model = torch.nn.Flatten()
    images = torch.arange(7.0).reshape(7, 1)
    dataset = torch.utils.data.TensorDataset(images, torch.arange(7))
    for batch_size in (1, 3, 8):
        loader = torch.utils.data.DataLoader(dataset, batch_size)
        found = list(predicted_logits(model, loader, Numerics(torch.device("cpu"))))
        logits, labels = torch.cat([x for x, _ in found]), torch.cat([y for _, y in found])
        assert logits[:, 0].tolist() == labels.tolist() == list(range(7))
