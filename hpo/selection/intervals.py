"""95 % intervals of the finalists' means and of their gains over the default configuration.

A value has two sources of chance: the seed (weights, order, augmentation), and the images that
val happens to contain. All finalists share seeds and images, so their differences are taken in
pairs. The intervals hold for all finalists simultaneously, hence also for the winner, which is
selected for its high mean.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

CONFIDENCE: Final = 0.95
NORMAL_95: Final = 1.96  # standard deviations of a normal distribution
FloatArray = npt.NDArray[np.float64]
ValuesBySeed = Mapping[int, Sequence[float]]  # a finalist's number: its values, seed by seed


@dataclass(frozen=True)
class ValImages:
    """The val images that the values were measured on.

    Attributes:
        num_images: The number of images in val.
        fold_ratio: Val images per training image, if each seed splits its own val off train;
            None: all seeds share the same val images.
        values_are_shares: Whether a value is the share of correctly classified images, such as
            top-1.
    """

    num_images: int
    fold_ratio: float | None
    values_are_shares: bool


@dataclass(frozen=True)
class Estimate:
    """A mean over the seeds with its 95 % interval.

    Attributes:
        mean: The mean over the seeds.
        margin: Half the interval's width; None: a single seed gives no interval.
        least: The smallest possible value, such as 0 for a share; the interval is cut there.
        most: The largest possible value; the interval is cut there.
    """

    mean: float
    margin: float | None
    least: float = -math.inf
    most: float = math.inf

    @property
    def low(self) -> float | None:
        """The lower end of the interval; None with one seed."""
        return None if self.margin is None else max(self.mean - self.margin, self.least)

    @property
    def high(self) -> float | None:
        """The upper end of the interval; None with one seed."""
        return None if self.margin is None else min(self.mean + self.margin, self.most)

    @property
    def is_within_noise(self) -> bool:
        """Whether the interval contains 0, or there is no interval."""
        return self.margin is None or abs(self.mean) <= self.margin


@dataclass(frozen=True)
class _Spread:
    """A variance with the degrees of freedom of its estimate."""

    variance: float
    df: float


def estimate_means(values: ValuesBySeed, images: ValImages) -> dict[int, Estimate]:
    """Each finalist's mean over the seeds with its interval, by number."""
    pooled = _spread_of_a_value(_matrix(values))
    estimates = {}
    for number, of_seeds in values.items():
        mean = float(np.mean(of_seeds))
        by_images = _share_variance(mean, images) if images.values_are_shares else 0.0
        margin = _margin(pooled, of_seeds, by_images, images, len(values))
        estimates[number] = Estimate(mean, margin)
    return estimates


def estimate_gains(values: ValuesBySeed, default: int, images: ValImages) -> dict[int, Estimate]:
    """Each other finalist's mean minus the default's, with its interval, by number."""
    pooled = _spread_of_a_difference(_matrix(values))
    base = float(np.mean(values[default]))
    estimates = {}
    for number, of_seeds in values.items():
        if number == default:
            continue
        mean = float(np.mean(of_seeds))
        differences = np.subtract(of_seeds, values[default]).tolist()
        by_images = _gain_variance(mean, base, images) if images.values_are_shares else 0.0
        margin = _margin(pooled, differences, by_images, images, len(values) - 1)
        estimates[number] = Estimate(mean - base, margin)
    return estimates


def _margin(
    pooled: _Spread | None,
    of_seeds: Sequence[float],
    by_images: float,
    images: ValImages,
    num_compared: int,
) -> float | None:
    """Half the width of one of several simultaneous intervals; None with one seed.

    The spread pooled over the finalists has the most degrees of freedom, but gives a finalist
    that scatters more than the others too narrow an interval. So the width is at least that of
    an interval from this finalist's own spread, without correction for `num_compared`. In a
    simulation of 4 finalists, one of which scatters 6.7 times as much as the others, all
    intervals hold in 95 % of cases on 3 and on 5 seeds (88 and 90 % with the pooled spread
    alone; 93 % if the default scatters most, as it is part of each gain). If all scatter alike,
    the intervals are 1.3 and 1.1 times as wide as with the pooled spread alone (2.4 times on 2
    seeds, where a finalist's own spread has one degree of freedom).

    Args:
        pooled: The spread of a value on one seed, pooled over all finalists.
        of_seeds: This finalist's values, or differences to the default, by seed.
        by_images: The variance of their mean due to the choice of val images.
        images: The val images.
        num_compared: The number of simultaneous intervals.

    Source: Dunn, JASA 56 (1961): each pooled interval at level 1 - 5 % / num_compared
    ("Bonferroni"); tests/hpo/selection/test_intervals.py for the simulation.
    """
    if pooled is None:
        return None
    num_seeds = len(of_seeds)
    own = _Spread(float(np.var(of_seeds, ddof=1)), num_seeds - 1)
    return max(
        _half_width(_with_images(pooled, num_seeds, by_images, images), num_compared),
        _half_width(_with_images(own, num_seeds, by_images, images), 1),
    )


def _half_width(spread: _Spread, num_compared: int) -> float:
    """The quantile of Student's t for this many intervals, times the standard deviation."""
    from scipy.special import stdtrit  # importing scipy.stats takes half a second longer

    quantile = stdtrit(spread.df, 1 - (1 - CONFIDENCE) / (2 * num_compared))
    return float(quantile * math.sqrt(spread.variance))


def _matrix(values: ValuesBySeed) -> FloatArray:
    """The values as an array (finalists, seeds)."""
    return np.array(list(values.values()), dtype=np.float64)


def _mean_squares(matrix: FloatArray) -> tuple[float, float]:
    """The mean square between seeds, and the residual mean square, of values (finalists, seeds).

    Source: the analysis of variance of a randomised complete block design; a seed is a block.
    """
    num, num_seeds = matrix.shape
    centred = matrix - matrix.mean(axis=1, keepdims=True)
    of_seeds = centred.mean(axis=0)
    between = num * float(np.sum(of_seeds**2)) / (num_seeds - 1)
    rest = float(np.sum((centred - of_seeds) ** 2))
    return between, rest / max(1, (num - 1) * (num_seeds - 1))


def _spread_of_a_difference(matrix: FloatArray) -> _Spread | None:
    """The spread of the difference of two finalists on one seed, pooled over all pairs.

    None with one seed or one finalist.
    """
    num, num_seeds = matrix.shape
    if num_seeds < 2 or num < 2:
        return None
    return _Spread(2 * _mean_squares(matrix)[1], (num - 1) * (num_seeds - 1))


def _spread_of_a_value(matrix: FloatArray) -> _Spread | None:
    """The spread of a finalist's value on one seed, pooled over the finalists; None with one seed.

    Source: Satterthwaite, Biometrics Bulletin 2 (1946), for the degrees of freedom, since the
    finalists' values on one seed may be correlated.
    """
    num, num_seeds = matrix.shape
    if num_seeds < 2:
        return None
    between, rest = _mean_squares(matrix)
    total = between + (num - 1) * rest
    parts = between**2 + (num - 1) * rest**2
    df = (num_seeds - 1) * (total**2 / parts if parts > 0 else 1.0)
    return _Spread(total / num, df)


def _with_images(spread: _Spread, num_seeds: int, by_images: float, images: ValImages) -> _Spread:
    """The spread of the mean over the seeds, with the variance due to the choice of val images.

    If all seeds share the val images, this variance does not shrink with more seeds. If each
    seed has its own val images, the variance between seeds contains it already, but the seeds
    are correlated, because they share most training images.

    Source: Nadeau and Bengio, Machine Learning 52 (2003), for the correction of overlapping
    folds; Satterthwaite for the degrees of freedom of the sum.
    """
    if images.fold_ratio is not None:
        # On few seeds and images the values may agree by chance, so by_images is the minimum.
        of_one = max(spread.variance, by_images)
        return _Spread(of_one * (1 / num_seeds + images.fold_ratio), spread.df)
    by_seeds = spread.variance / num_seeds
    total = by_seeds + by_images
    return _Spread(total, spread.df * (total / by_seeds) ** 2 if by_seeds > 0 else math.inf)


def _share_variance(share: float, images: ValImages) -> float:
    """The binomial variance of a share of correct images, due to the choice of val images."""
    p = _drawn_to_the_middle(share, images)
    return p * (1 - p) / images.num_images


def margin_by_images(share: float, num_images: int) -> float:
    """Half the 95 % interval of one share of correct images, due to the choice of val images.

    The seed's part is left out: a single training does not show it.
    """
    variance = _share_variance(share, ValImages(num_images, None, values_are_shares=True))
    return NORMAL_95 * math.sqrt(variance)


def _gain_variance(share: float, base: float, images: ValImages) -> float:
    """The largest possible variance of the difference of two shares, due to the val images.

    The variance is largest if no image is wrong, or none is right, in both. The worst case is
    assumed, because the study does not store which images are wrong.
    """
    p, q = _drawn_to_the_middle(share, images), _drawn_to_the_middle(base, images)
    disagreeing = min(p + q, 2 - p - q)
    return (disagreeing - (p - q) ** 2) / images.num_images


def _drawn_to_the_middle(share: float, images: ValImages) -> float:
    """The share after adding one right and one wrong image, so that its variance is never 0.

    Source: Agresti and Caffo, The American Statistician 54 (2000).
    """
    return (share * images.num_images + 1) / (images.num_images + 2)
