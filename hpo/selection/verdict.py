"""Who of the finalists wins, by how much, and how surely: by their trainings, and in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

from hpo.selection.intervals import Estimate, ValImages, estimate_gains, estimate_means
from sgformer.config import Metric, maximises

DEFAULT: Final = 0  # the number of the default configuration's trial
SHARES_OF_IMAGES: Final = ("val_top1", "val_top5")
# A curve that is best so close to its end has not been seen to come to rest.
LAST_SHARE: Final = 0.1


@dataclass(frozen=True)
class FreshTraining:
    """A finalist's training on a fresh seed, as the study keeps it.

    Attributes:
        trial: The number of the trial whose configuration it is.
        seed: Of weights, order and augmentation.
        value: The objective in its best epoch; None: it diverged at once, or broke.
        best_epoch: That epoch.
        num_epochs: That it took, with those that a crash cost.
        max_epochs: That it might have taken.
        seconds: That they took.
        gpu_seconds: Those, by the number of GPUs.
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
        metric: What is compared, the best epoch's of each training.
        winner: The trial's number: the best mean of those that may win; of equals the default's.
        has_default: Whether the default configuration was among them.
        means: By the trial's number; empty where the winner was alone.
        gains: Over the default; above 0 is better, whichever way the metric is.
        trainings: The winner's.
        covers_images: Whether the intervals allow for other val images, too.
        picked_on_images: Whether trials were compared on the val images of these trainings.
    """

    metric: Metric
    winner: int
    has_default: bool
    means: Mapping[int, Estimate] = field(default_factory=dict)
    gains: Mapping[int, Estimate] = field(default_factory=dict)
    trainings: tuple[FreshTraining, ...] = ()
    covers_images: bool = True
    picked_on_images: bool = False


def judge(
    numbers: Sequence[int],
    trainings: Sequence[FreshTraining],
    metric: Metric,
    num_val_images: int,
    fold_ratio: float | None,
    *,
    default_may_win: bool = True,
) -> Verdict | None:
    """The verdict on some finalists, by all of their trainings.

    One that diverged at once, or broke, on some seed is out; None if none is left that may win.

    Args:
        numbers: Of the finalists, the most promising first.
        trainings: Of each on the same seeds, in the seeds' order; empty for one alone.
        metric: Of their values.
        num_val_images: See ValImages; likewise `fold_ratio`.
        fold_ratio: See ValImages.
        default_may_win: Whether it keeps to the constraints; if not, it is compared with only.
    """
    if not trainings and numbers[0] == DEFAULT and not default_may_win:
        return None
    if not trainings:
        return Verdict(metric, numbers[0], DEFAULT in numbers)
    values = {n: [t.value for t in trainings if t.trial == n] for n in numbers}
    known = {n: [v for v in of_seeds if v is not None] for n, of_seeds in values.items()}
    known = {n: of_seeds for n, of_seeds in known.items() if len(of_seeds) == len(values[n])}
    able = [n for n in known if n != DEFAULT or default_may_win]
    if not able:
        return None
    images = ValImages(num_val_images, fold_ratio, metric in SHARES_OF_IMAGES)
    sign = 1 if maximises(metric) else -1
    means = estimate_means(known, images)
    order = sorted(able, key=lambda n: n != DEFAULT)
    winner = max(order, key=lambda n: sign * means[n].mean)
    gains = estimate_gains(known, DEFAULT, images) if DEFAULT in known else {}
    gains = {n: Estimate(sign * gain.mean, gain.margin) for n, gain in gains.items()}
    of_winner = tuple(t for t in trainings if t.trial == winner)
    covers_images = images.values_are_shares or fold_ratio is not None
    has_folder = fold_ratio is None
    return Verdict(
        metric, winner, DEFAULT in known, means, gains, of_winner, covers_images, has_folder
    )


def mean_text(verdict: Verdict, number: int) -> str:
    """'val_top1 0.9878 (0.9702 to 1.0000) on 3 fresh seeds'."""
    mean, num_seeds = verdict.means[number], len(verdict.trainings)
    seeds = "one fresh seed" if num_seeds == 1 else f"{num_seeds} fresh seeds"
    text = f"{verdict.metric} {mean.mean:.4f}"
    if mean.low is not None and mean.high is not None:
        most = 1.0 if verdict.metric != "val_loss" else mean.high
        text += f" ({max(0.0, mean.low):.4f} to {min(most, mean.high):.4f})"
    return f"{text} on {seeds}"


def gain_text(verdict: Verdict | None) -> str:
    """What the winner gains over the default, and whether that is more than noise."""
    if verdict is None:
        return "not known: nothing was compared on fresh seeds (retrain.seeds)"
    if not verdict.has_default:
        return "not known: the default configuration broke, diverged, or was not trained"
    if verdict.winner == DEFAULT:
        return _none_text(verdict)
    gain = verdict.gains[verdict.winner]
    if gain.margin is None:
        return (
            f"{gain.mean:+.4f} over the default on one fresh seed, which cannot tell it from "
            "noise (retrain.seeds)"
        )
    text = f"{signed_text(gain)} over the default: "
    if gain.is_within_noise:
        return f"{text}within noise, the default is as good as far as these seeds can tell"
    if gain.mean < 0:
        return f"{text}worse than the default, which does not keep to study.constraints"
    return f"{text}better than the default"


def _none_text(verdict: Verdict) -> str:
    """Where the default wins."""
    if not verdict.gains:
        return "none: the default configuration is the best trial"
    closest = max(verdict.gains, key=lambda n: verdict.gains[n].mean)
    gain = verdict.gains[closest]
    return (
        f"none: the default configuration is the best of {len(verdict.means)} finalists; the next "
        f"one, trial {closest}, has {signed_text(gain)}"
    )


def signed_text(gain: Estimate) -> str:
    """'+0.0045 (-0.0130 to +0.0220)'."""
    if gain.low is None or gain.high is None:
        return f"{gain.mean:+.4f}"
    return f"{gain.mean:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})"


def verdict_values(verdict: Verdict) -> dict[str, Any]:
    """The winner for programs: its mean and its gain, with their intervals."""

    def plain(estimate: Estimate | None) -> dict[str, float | None] | None:
        if estimate is None:
            return None
        return {"mean": estimate.mean, "low": estimate.low, "high": estimate.high}

    gain = verdict.gains.get(verdict.winner)
    return {
        "number": verdict.winner,
        "num_seeds": len(verdict.trainings),
        verdict.metric: plain(verdict.means.get(verdict.winner)),
        "gain_over_default": plain(gain),
        "is_within_noise": gain is None or gain.is_within_noise,
        "best_epochs": [training.best_epoch for training in verdict.trainings],
    }


def finalist_values(verdict: Verdict, number: int) -> dict[str, float | None]:
    """A trial's columns of the leaderboard: empty unless it was a finalist."""
    mean, gain = verdict.means.get(number), verdict.gains.get(number)
    return {
        "mean_on_fresh_seeds": None if mean is None else mean.mean,
        "gain": None if gain is None else gain.mean,
        "gain_low": None if gain is None else gain.low,
        "gain_high": None if gain is None else gain.high,
    }


def correction_text(verdict: Verdict) -> str:
    """What the intervals hold for."""
    if len(verdict.trainings) < 2:
        return "One fresh seed gives no intervals (retrain.seeds)."
    images = "and other val images" if verdict.covers_images else "but not over other val images"
    if verdict.covers_images and verdict.picked_on_images:
        images += ", though from all trials the finalists were picked by these same ones"
    return (
        "Intervals hold with 95 % for all finalists at once, so also for the one picked; over "
        f"other seeds, {images}."
    )


def epochs_text(verdict: Verdict) -> str:
    """Where the winner's curves are best, and whether they may go on rising."""
    best = [t.best_epoch for t in verdict.trainings if t.best_epoch is not None]
    length = verdict.trainings[0].max_epochs
    text = f"best at epoch {median(best):g} of {length}"
    if all(epoch > (1 - LAST_SHARE) * length for epoch in best):
        text += ", still getting better at the end: retrain.max_epochs may go further"
    return text
