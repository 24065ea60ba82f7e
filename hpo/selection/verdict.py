"""The verdict: which finalist wins, its gain over the default, and the gain's interval."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any, Final

from hpo.config.objectives import Constraint, Objective
from hpo.selection.intervals import Estimate, ValImages, estimate_gains, estimate_means
from sgformer.config import Metric

DEFAULT: Final = 0  # the number of the default configuration's trial
SHARES_OF_IMAGES: Final = ("val_top1", "val_top5")
LOSS: Final = "val_loss"  # the only metric with a range other than 0..1


@dataclass(frozen=True)
class FreshTraining:
    """The result of a finalist's training on a fresh seed, as the study stores it.

    Attributes:
        trial: The number of the trial whose configuration is trained.
        seed: The seed of initial weights, order of images and augmentation.
        value: The metric at the best epoch; None: the training diverged in its first epoch, or
            failed.
        best_epoch: The number of the best epoch, from 1; None: as for `value`.
        num_epochs: Epochs begun in all attempts, repeated ones included.
        max_epochs: The planned length, in epochs.
        seconds: Wall time of `num_epochs`.
        gpu_seconds: `seconds` times the number of GPUs.
        int8_top1_drop: The share of val images that the model loses in 8-bit integers; None: not
            measured.
    """

    trial: int
    seed: int
    value: float | None
    best_epoch: int | None
    num_epochs: int
    max_epochs: int
    seconds: float
    gpu_seconds: float
    int8_top1_drop: float | None = None


@dataclass(frozen=True)
class TeacherGain:
    """What the teacher of a distillation adds to the winner.

    Attributes:
        alone: The winner's mean on the same fresh seeds without the teacher.
        gain: What the winner gains over that mean; positive if the teacher helps.
    """

    alone: Estimate
    gain: Estimate


@dataclass(frozen=True)
class Verdict:
    """Which finalist wins, with the means and gains of all finalists.

    Attributes:
        metric: The metric that the finalists are compared by.
        winner: The trial with the best mean among those that may win; among equals the default.
        has_default: Whether the default configuration was trained on all seeds.
        means: Each finalist's mean, by trial number; empty if nothing was compared.
        gains: Each other finalist's gain over the default, by trial number; a positive gain is
            an improvement, whatever the metric's direction.
        trainings: The winner's trainings, one per seed, in the order of seeds.
        covers_images: Whether the intervals include the variance due to the choice of val images.
        picked_on_images: Whether the search selected the finalists on these same val images.
        is_cut_to_one: Whether there was room for only one of several finalists, so that nothing
            was compared.
        is_cut_by_share: Whether `retrain.max_share` cut finalists or seeds.
        teacher: What the winner's teacher adds; None: it has none, or that is not known yet.
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
    is_cut_by_share: bool = False
    teacher: TeacherGain | None = None


def judge(
    numbers: Sequence[int],
    trainings: Sequence[FreshTraining],
    metric: Metric,
    num_val_images: int,
    fold_ratio: float | None,
    *,
    default_may_win: bool = True,
    bounds: Sequence[Constraint] = (),
    is_cut_to_one: bool = False,
    is_cut_by_share: bool = False,
) -> Verdict | None:
    """The verdict on the finalists, from all of their trainings; None if no finalist may win.

    A finalist without a value on some seed cannot win.

    Args:
        numbers: The finalists' trial numbers, the most promising first.
        trainings: All finalists' trainings on the same seeds, in the order of seeds; empty if
            there is only one finalist.
        metric: The metric that the finalists are compared by.
        num_val_images: The number of images in val.
        fold_ratio: Val images per training image; None: all seeds share the val images.
        default_may_win: Whether the default configuration satisfies the constraints; if not, it
            serves for comparison only.
        bounds: Constraints on `int8_top1_drop`; a finalist whose mean misses one serves for
            comparison only.
        is_cut_to_one: Whether there was room for only one of several finalists.
        is_cut_by_share: Whether `retrain.max_share` cut finalists or seeds.
    """
    if not trainings:
        may_win = numbers[0] != DEFAULT or default_may_win
        alone = Verdict(
            metric,
            numbers[0],
            DEFAULT in numbers,
            is_cut_to_one=is_cut_to_one,
            is_cut_by_share=is_cut_by_share,
        )
        return alone if may_win else None
    values = _values_of_sound(numbers, trainings)
    candidates = [n for n in values if n != DEFAULT or default_may_win]
    candidates = [n for n in candidates if _keeps_to(bounds, n, trainings)]
    if not candidates:
        return None
    images = ValImages(num_val_images, fold_ratio, metric in SHARES_OF_IMAGES)
    verdict = _compare(values, candidates, trainings, metric, images)
    return replace(verdict, is_cut_to_one=is_cut_to_one, is_cut_by_share=is_cut_by_share)


def _compare(
    values: Mapping[int, Sequence[float]],
    candidates: Sequence[int],
    trainings: Sequence[FreshTraining],
    metric: Metric,
    images: ValImages,
) -> Verdict:
    """The verdict on finalists with a value on each seed; only `candidates` may win."""
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


def with_teacher(
    verdict: Verdict,
    alone: Sequence[FreshTraining],
    num_val_images: int,
    fold_ratio: float | None,
) -> Verdict:
    """The verdict with what the winner's teacher adds, unless a training alone has no value.

    Args:
        verdict: The verdict on the finalists.
        alone: The winner's trainings without its teacher, on the same seeds.
        num_val_images: The number of images in val.
        fold_ratio: Val images per training image; None: all seeds share the val images.
    """
    without, taught = 0, 1
    values = {
        without: [one.value for one in alone if one.value is not None],
        taught: [one.value for one in verdict.trainings if one.value is not None],
    }
    if not alone or len(values[without]) < len(values[taught]):
        return verdict
    objective = Objective.named(verdict.metric)
    images = ValImages(num_val_images, fold_ratio, verdict.metric in SHARES_OF_IMAGES)
    mean = _in_range(estimate_means(values, images)[without], verdict.metric)
    gain = _gains(values, images, objective)[taught]
    return replace(verdict, teacher=TeacherGain(mean, gain))


def _values_of_sound(
    numbers: Sequence[int], trainings: Sequence[FreshTraining]
) -> dict[int, list[float]]:
    """Values in the order of seeds, by finalist; without finalists that lack a value on a seed."""
    values = {n: [t.value for t in trainings if t.trial == n] for n in numbers}
    return {
        n: [value for value in of_seeds if value is not None]
        for n, of_seeds in values.items()
        if None not in of_seeds
    }


def _keeps_to(
    bounds: Sequence[Constraint], number: int, trainings: Sequence[FreshTraining]
) -> bool:
    """Whether a finalist's mean drop is within the bounds, as far as it was measured."""
    drops = [t.int8_top1_drop for t in trainings if t.trial == number]
    known = [drop for drop in drops if drop is not None]
    return not known or all(bound.violation(fmean(known)) <= 0 for bound in bounds)


def _winner(candidates: Sequence[int], means: Mapping[int, Estimate], objective: Objective) -> int:
    """The candidate with the best mean; among equals the default, else the first candidate."""
    default_first = sorted(candidates, key=lambda number: number != DEFAULT)
    return min(default_first, key=lambda number: objective.loss(means[number].mean))


def _gains(
    values: Mapping[int, Sequence[float]], images: ValImages, objective: Objective
) -> dict[int, Estimate]:
    """Each finalist's gain over the default, positive if better; empty without a default."""
    if DEFAULT not in values:
        return {}
    gains = estimate_gains(values, DEFAULT, images)
    most = math.inf if objective.name == LOSS else 1.0
    return {
        number: Estimate(objective.sign * gain.mean, gain.margin, least=-most, most=most)
        for number, gain in gains.items()
    }


def _in_range(mean: Estimate, metric: Metric) -> Estimate:
    """The mean with its interval cut to the metric's range."""
    return replace(mean, least=0.0, most=math.inf if metric == LOSS else 1.0)


def verdict_values(verdict: Verdict) -> dict[str, Any]:
    """The winner's mean and gain with their intervals, as plain values for JSON."""
    gain = verdict.gains.get(verdict.winner)
    teacher = verdict.teacher
    return {
        "number": verdict.winner,
        "num_seeds": len(verdict.trainings),
        verdict.metric: _plain(verdict.means.get(verdict.winner)),
        "gain_over_default": _plain(gain),
        "is_within_noise": gain is None or gain.is_within_noise,
        "best_epochs": [training.best_epoch for training in verdict.trainings],
        "without_teacher": _plain(None if teacher is None else teacher.alone),
        "gain_of_teacher": _plain(None if teacher is None else teacher.gain),
    }


def _plain(estimate: Estimate | None) -> dict[str, float | None] | None:
    if estimate is None:
        return None
    return {"mean": estimate.mean, "low": estimate.low, "high": estimate.high}


def finalist_values(verdict: Verdict, number: int) -> dict[str, float | None]:
    """The trial's columns of the leaderboard; all None unless the trial was a finalist."""
    mean, gain = verdict.means.get(number), verdict.gains.get(number)
    return {
        "mean_on_fresh_seeds": None if mean is None else mean.mean,
        "gain": None if gain is None else gain.mean,
        "gain_low": None if gain is None else gain.low,
        "gain_high": None if gain is None else gain.high,
    }
