"""What finalists' trainings on fresh seeds say: means, gains over the default, and how surely.

Two things make a value a matter of chance: the seed (weights, order, augmentation) and which
images val happens to have. All finalists share seeds and images, so they are compared in pairs.
Numbers are of 95 % intervals that hold for all finalists at once: whichever looks best, and is
picked for it, its interval still holds.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

CONFIDENCE: Final = 0.95
FloatArray = npt.NDArray[np.float64]
ValuesBySeed = Mapping[int, Sequence[float]]  # of each finalist, over the same seeds


@dataclass(frozen=True)
class ValImages:
    """What the values were measured on.

    Attributes:
        num_images: In val.
        fold_ratio: Val images for each training image, where every seed drew its own val off
            train; None: all seeds were measured on the same images.
        values_are_shares: Whether a value is the share of images that are right, as top-1 is.
    """

    num_images: int
    fold_ratio: float | None
    values_are_shares: bool


@dataclass(frozen=True)
class Estimate:
    """A mean, and what it may be off by; None: one seed does not tell."""

    mean: float
    margin: float | None

    @property
    def low(self) -> float | None:
        return None if self.margin is None else self.mean - self.margin

    @property
    def high(self) -> float | None:
        return None if self.margin is None else self.mean + self.margin

    @property
    def is_within_noise(self) -> bool:
        """Whether it may as well be zero."""
        return self.margin is None or abs(self.mean) <= self.margin


@dataclass(frozen=True)
class _Spread:
    """A variance, and the degrees of freedom that it is known with."""

    variance: float
    df: float


def estimate_means(values: ValuesBySeed, images: ValImages) -> dict[int, Estimate]:
    """Each finalist's mean over the seeds."""
    spread = _spread_of_a_value(_matrix(values))
    estimates = {}
    for number, of_seeds in values.items():
        mean = float(np.mean(of_seeds))
        by_images = _share_variance(mean, images) if images.values_are_shares else 0.0
        total = _with_images(spread, len(of_seeds), by_images, images)
        estimates[number] = Estimate(mean, _margin(total, len(values)))
    return estimates


def estimate_gains(values: ValuesBySeed, default: int, images: ValImages) -> dict[int, Estimate]:
    """Each other finalist's mean minus the default's, over the same seeds."""
    spread = _spread_of_a_difference(_matrix(values))
    base = float(np.mean(values[default]))
    estimates = {}
    for number, of_seeds in values.items():
        if number == default:
            continue
        mean = float(np.mean(of_seeds))
        by_images = _gain_variance(mean, base, images) if images.values_are_shares else 0.0
        total = _with_images(spread, len(of_seeds), by_images, images)
        estimates[number] = Estimate(mean - base, _margin(total, len(values) - 1))
    return estimates


def _matrix(values: ValuesBySeed) -> FloatArray:
    """(finalists, seeds)."""
    return np.array(list(values.values()), dtype=np.float64)


def _mean_squares(matrix: FloatArray) -> tuple[float, float]:
    """Between seeds, and of what neither finalist nor seed explains.

    Source: the analysis of variance of a randomised complete block design; a seed is a block.
    Finalists are taken to scatter alike: of each one alone, a few seeds would tell too little.
    """
    num, num_seeds = matrix.shape
    centred = matrix - matrix.mean(axis=1, keepdims=True)
    of_seeds = centred.mean(axis=0)
    between = num * float(np.sum(of_seeds**2)) / (num_seeds - 1)
    rest = float(np.sum((centred - of_seeds) ** 2))
    return between, rest / max(1, (num - 1) * (num_seeds - 1))


def _spread_of_a_difference(matrix: FloatArray) -> _Spread | None:
    """Of two finalists' values on one seed; None: one seed does not tell."""
    num, num_seeds = matrix.shape
    if num_seeds < 2 or num < 2:
        return None
    return _Spread(2 * _mean_squares(matrix)[1], (num - 1) * (num_seeds - 1))


def _spread_of_a_value(matrix: FloatArray) -> _Spread | None:
    """Of a finalist's value on one seed, pooled over the finalists.

    Source: Satterthwaite, Biometrics Bulletin 2 (1946), for the degrees of freedom: values on one
    seed may go up and down together.
    """
    num, num_seeds = matrix.shape
    if num_seeds < 2:
        return None
    between, rest = _mean_squares(matrix)
    total = between + (num - 1) * rest
    parts = between**2 + (num - 1) * rest**2
    df = (num_seeds - 1) * (total**2 / parts if parts > 0 else 1.0)
    return _Spread(total / num, df)


def _with_images(
    spread: _Spread | None, num_seeds: int, by_images: float, images: ValImages
) -> _Spread | None:
    """Of the mean over the seeds, had val had other images too.

    Where all seeds are measured on the same images, more seeds do not make up for few images.
    Where each has its own, the seeds show what other images do; but they share most training
    images.

    Source: Nadeau and Bengio, Machine Learning 52 (2003), for the factor of overlapping folds;
    Satterthwaite for the sum.
    """
    if spread is None:
        return None
    if images.fold_ratio is not None:
        # Of few seeds and few images all may chance to agree.
        of_one = max(spread.variance, by_images)
        return _Spread(of_one * (1 / num_seeds + images.fold_ratio), spread.df)
    by_seeds = spread.variance / num_seeds
    total = by_seeds + by_images
    return _Spread(total, spread.df * (total / by_seeds) ** 2 if by_seeds > 0 else math.inf)


def _share_variance(share: float, images: ValImages) -> float:
    """Of a share of right images, over the images that val might have had."""
    p = _drawn_to_the_middle(share, images)
    return p * (1 - p) / images.num_images


def _gain_variance(share: float, base: float, images: ValImages) -> float:
    """At most: as if no image were wrong by both, since which ones were is not kept."""
    p, q = _drawn_to_the_middle(share, images), _drawn_to_the_middle(base, images)
    disagreeing = min(p + q, 2 - p - q)
    return (disagreeing - (p - q) ** 2) / images.num_images


def _drawn_to_the_middle(share: float, images: ValImages) -> float:
    """With one right and one wrong image more: none wrong of few does not mean none ever.

    Source: Agresti and Caffo, The American Statistician 54 (2000).
    """
    return (share * images.num_images + 1) / (images.num_images + 2)


def _margin(spread: _Spread | None, num_compared: int) -> float | None:
    """Half the width of intervals that all hold at once.

    Source: Dunn, JASA 56 (1961): each at 1 - 5 % / number ("Bonferroni").
    """
    if spread is None:
        return None
    from scipy.special import stdtrit  # Student's t; scipy.stats takes half a second more

    quantile = stdtrit(spread.df, 1 - (1 - CONFIDENCE) / (2 * num_compared))
    return float(quantile * math.sqrt(spread.variance))
