"""Tests of the rules on recorded curves of sg_former_pico and _nano on noisy digits."""

import csv
import dataclasses
from pathlib import Path

import pytest

from sgformer.config import TrainConfig
from sgformer.optimization.batch_norm import StatisticsImages
from sgformer.training.diagnosis import diagnose
from sgformer.training.epoch_metrics import EpochMetrics

CURVES = Path(__file__).parent / "curves"
WHOLE = {"epoch", "micro_batch_size", "peak_memory_bytes"}


def recorded(name: str) -> list[EpochMetrics]:
    with (CURVES / f"{name}.csv").open() as file:
        return [
            EpochMetrics(
                **{
                    key: int(value) if key in WHOLE else float(value)
                    for key, value in row.items()
                    if value
                }
            )
            for row in csv.DictReader(file)
        ]


def tags(history: list[EpochMetrics], end_reason: str | None, *, has_gpu: bool = False) -> list:
    smoothing = 0.1 if history[-1].train_loss > 0.1 else 0.0
    config = TrainConfig(label_smoothing=smoothing)
    return [f.tag for f in diagnose(history, config, 10, end_reason, has_gpu=has_gpu)]


@pytest.mark.parametrize(
    ("name", "end_reason", "expected"),
    [
        ("sound", "completed", []),
        ("diverged", "diverged", ["diverged"]),
        ("oscillating", "completed", ["loss oscillates"]),
        ("overfitting", "completed", ["overfits"]),
        ("underfitting", "completed", ["underfits"]),
        ("plateaued", "completed", ["plateaued early"]),
    ],
)
def test_each_curve_is_recognised(name: str, end_reason: str, expected: list[str]) -> None:
    history = recorded(name)
    assert tags(history, end_reason) == expected
    for finding in diagnose(history, TrainConfig(), 10, end_reason):
        assert finding.evidence
        assert finding.remedy


@pytest.mark.parametrize("name", ["underfitting", "plateaued"])
def test_what_a_scheduler_stopped_is_not_blamed_for_it(name: str) -> None:
    assert tags(recorded(name), None) == []


@pytest.mark.parametrize("name", ["sound", "oscillating", "overfitting", "plateaued"])
def test_a_few_epochs_say_nothing(name: str) -> None:
    assert tags(recorded(name)[:4], None) == []


def with_counters(waiting: float, utilization: float | None) -> list[EpochMetrics]:
    return [
        dataclasses.replace(
            metrics, data_seconds=waiting * metrics.seconds, gpu_utilization=utilization
        )
        for metrics in recorded("sound")
    ]


@pytest.mark.parametrize(
    ("waiting", "utilization", "expected"),
    [
        (0.5, 0.3, ["GPU under-used: input-bound"]),
        (0.5, None, ["GPU under-used: input-bound"]),
        (0.5, 0.9, []),
        (0.05, 0.3, ["GPU under-used: batch too small"]),
        (0.05, 0.9, []),
        (0.05, None, []),
    ],
)
def test_an_idle_gpu_is_told_why(
    waiting: float, utilization: float | None, expected: list[str]
) -> None:
    history = with_counters(waiting, utilization)
    assert tags(history, "completed", has_gpu=True) == expected
    assert tags(history, "completed", has_gpu=False) == []


@pytest.mark.parametrize(
    ("images", "evidence"),
    [
        (None, None),
        (StatisticsImages(8, 8), None),
        (StatisticsImages(64, 64), None),
        (StatisticsImages(7, 7), "BatchNorm's statistics are of micro-batches of 7 images"),
        (StatisticsImages(32, 64), "micro-batches of 32 images; 64 did not fit into memory"),
    ],
)
def test_statistics_of_few_images_are_noted(
    images: StatisticsImages | None, evidence: str | None
) -> None:
    found = diagnose(recorded("sound"), TrainConfig(), 10, "completed", statistics=images)
    assert [f.tag for f in found] == ["small micro-batches"] * (evidence is not None)
    assert all(str(evidence) in f.evidence for f in found)
