"""Which finalist wins, by how much, and how surely: computed from their trainings."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from hpo.config.objectives import Objective
from hpo.selection.intervals import Estimate, ValImages, estimate_gains, estimate_means
from sgformer.config import Metric

DEFAULT: Final = 0  # the number of the default configuration's trial
SHARES_OF_IMAGES: Final = ("val_top1", "val_top5")
LOSS: Final = "val_loss"  # the only metric that is not in 0..1


@dataclass(frozen=True)
class FreshTraining:
    """A finalist's training on a fresh seed, as the study keeps it.

    Attributes:
        trial: The number of the trial whose configuration is trained.
        seed: The seed of weights, order and augmentation.
        value: The objective's value in the best epoch; None: the training diverged at once, or
            broke.
        best_epoch: The number of that epoch, from 1.
        num_epochs: Epochs begun in all attempts, repeated ones included.
        max_epochs: The planned length, in epochs.
        seconds: Wall time of `num_epochs`.
        gpu_seconds: `seconds` times the number of GPUs.
    """

    trial: int
    seed: int
    value: float | None
    best_epoch: int | None
    num_epochs: int
    max_epochs: int
    seconds: float
    gpu_seconds: float


@dataclass(frozen=True)
class Verdict:
    """Which finalist wins, and by how much.

    Attributes:
        metric: The objective that the finalists are compared by.
        winner: The number of the trial with the best mean of those that may win; among equals
            the default's.
        has_default: Whether the default configuration was trained on all seeds, to compare with.
        means: Each finalist's mean by its trial's number; empty where nothing was compared.
        gains: Each finalist's gain over the default; above 0 is better for any metric.
        trainings: The winner's trainings, in the seeds' order.
        covers_images: Whether the intervals allow for other val images, too.
        picked_on_images: Whether trials were compared on the val images of these trainings.
        is_cut_to_one: Whether the budget left room for one finalist, so nothing was compared.
    """

    metric: Metric
    winner: int
    has_default: bool
    means: Mapping[int, Estimate] = field(default_factory=dict)
    gains: Mapping[int, Estimate] = field(default_factory=dict)
    trainings: tuple[FreshTraining, ...] = ()
    covers_images: bool = True
    picked_on_images: bool = False
    is_cut_to_one: bool = False


def judge(
    numbers: Sequence[int],
    trainings: Sequence[FreshTraining],
    metric: Metric,
    num_val_images: int,
    fold_ratio: float | None,
    *,
    default_may_win: bool = True,
    is_cut_to_one: bool = False,
) -> Verdict | None:
    """The verdict on the finalists, by all of their trainings; None if none may win.

    A finalist that diverged at once, or broke, on some seed is out.

    Args:
        numbers: The finalists' trials, the most promising first.
        trainings: Each finalist's on the same seeds, in the seeds' order; empty if there is one
            finalist.
        metric: The objective that their values are of.
        num_val_images: The number of images in val.
        fold_ratio: Val images for each training image; None: see ValImages.
        default_may_win: Whether the default configuration keeps to the constraints; if not, it is
            only compared with.
        is_cut_to_one: Whether the budget left room for one finalist of several.
    """
    if not trainings:
        may_win = numbers[0] != DEFAULT or default_may_win
        alone = Verdict(metric, numbers[0], DEFAULT in numbers, is_cut_to_one=is_cut_to_one)
        return alone if may_win else None
    values = _values_of_sound(numbers, trainings)
    candidates = [n for n in values if n != DEFAULT or default_may_win]
    if not candidates:
        return None
    images = ValImages(num_val_images, fold_ratio, metric in SHARES_OF_IMAGES)
    return _compare(values, candidates, trainings, metric, images)


def _compare(
    values: Mapping[int, Sequence[float]],
    candidates: Sequence[int],
    trainings: Sequence[FreshTraining],
    metric: Metric,
    images: ValImages,
) -> Verdict:
    """The verdict on finalists that each have a value on each seed; a candidate may win."""
    objective = Objective.named(metric)
    means = {n: _in_range(mean, metric) for n, mean in estimate_means(values, images).items()}
    winner = _winner(candidates, means, objective)
    return Verdict(
        metric=metric,
        winner=winner,
        has_default=DEFAULT in values,
        means=means,
        gains=_gains(values, images, objective),
        trainings=tuple(training for training in trainings if training.trial == winner),
        covers_images=images.values_are_shares or images.fold_ratio is not None,
        picked_on_images=images.fold_ratio is None,
    )


def _values_of_sound(
    numbers: Sequence[int], trainings: Sequence[FreshTraining]
) -> dict[int, list[float]]:
    """The finalists' values in the seeds' order, without those that lack one on some seed."""
    values = {n: [t.value for t in trainings if t.trial == n] for n in numbers}
    return {
        n: [value for value in of_seeds if value is not None]
        for n, of_seeds in values.items()
        if None not in of_seeds
    }


def _winner(candidates: Sequence[int], means: Mapping[int, Estimate], objective: Objective) -> int:
    """The candidate with the best mean; among equals the default, then the most promising."""
    default_first = sorted(candidates, key=lambda number: number != DEFAULT)
    return min(default_first, key=lambda number: objective.loss(means[number].mean))


def _gains(
    values: Mapping[int, Sequence[float]], images: ValImages, objective: Objective
) -> dict[int, Estimate]:
    """Each finalist's gain over the default, above 0 where it is better; empty without one."""
    if DEFAULT not in values:
        return {}
    gains = estimate_gains(values, DEFAULT, images)
    most = math.inf if objective.name == LOSS else 1.0
    return {
        number: Estimate(objective.sign * gain.mean, gain.margin, least=-most, most=most)
        for number, gain in gains.items()
    }


def _in_range(mean: Estimate, metric: Metric) -> Estimate:
    """The mean with an interval that ends where the metric's values do."""
    return replace(mean, least=0.0, most=math.inf if metric == LOSS else 1.0)


def verdict_values(verdict: Verdict) -> dict[str, Any]:
    """The winner's mean and gain with their intervals, for programs (JSON)."""
    gain = verdict.gains.get(verdict.winner)
    return {
        "number": verdict.winner,
        "num_seeds": len(verdict.trainings),
        verdict.metric: _plain(verdict.means.get(verdict.winner)),
        "gain_over_default": _plain(gain),
        "is_within_noise": gain is None or gain.is_within_noise,
        "best_epochs": [training.best_epoch for training in verdict.trainings],
    }


def _plain(estimate: Estimate | None) -> dict[str, float | None] | None:
    if estimate is None:
        return None
    return {"mean": estimate.mean, "low": estimate.low, "high": estimate.high}


def finalist_values(verdict: Verdict, number: int) -> dict[str, float | None]:
    """A trial's columns of the leaderboard; each is None unless it was a finalist."""
    mean, gain = verdict.means.get(number), verdict.gains.get(number)
    return {
        "mean_on_fresh_seeds": None if mean is None else mean.mean,
        "gain": None if gain is None else gain.mean,
        "gain_low": None if gain is None else gain.low,
        "gain_high": None if gain is None else gain.high,
    }
