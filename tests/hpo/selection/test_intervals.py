"""Tests that intervals have their nominal coverage, on drawn values with known means."""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.stats import t

from hpo.selection.intervals import Estimate, ValImages, estimate_gains, estimate_means

SAME_IMAGES = ValImages(1000, None, values_are_shares=False)
FOLDS = ValImages(1000, 0.25, values_are_shares=False)
NUM_DRAWS = 800
# The lowest accepted coverage: 95 % minus three standard deviations of a share of 800 draws.
ENOUGH = 0.927


def draw(
    random: np.random.Generator, shape: tuple[int, int], seed_sd: float, sds: float | list[float]
) -> dict[int, list[float]]:
    """Values of equally good finalists: 0.9 + a seed's effect on all + noise of each alone."""
    of_seeds = random.normal(0, seed_sd, (1, shape[1]))
    alone = random.normal(0, 1, shape) * np.reshape(sds, (-1, 1))
    return {i: row.tolist() for i, row in enumerate(0.9 + of_seeds + alone)}


@pytest.mark.parametrize(
    ("num_finalists", "num_seeds", "seed_sd", "sds"),
    [
        (4, 3, 0.0, 0.01),
        (4, 3, 0.02, 0.01),
        (4, 3, 0.1, 0.001),
        (2, 2, 0.0, 0.01),
        (7, 5, 0.01, 0.01),
        (4, 3, 0.01, [0.01, 0.015, 0.01, 0.005]),
    ],
)
def test_intervals_hold_though_the_best_of_several_is_picked(
    num_finalists: int, num_seeds: int, seed_sd: float, sds: float | list[float]
) -> None:
    random = np.random.default_rng(0)
    gains_hold = mean_holds = 0
    for _ in range(NUM_DRAWS):
        values = draw(random, (num_finalists, num_seeds), seed_sd, sds)
        means = estimate_means(values, SAME_IMAGES)
        gains = estimate_gains(values, 0, SAME_IMAGES)
        picked = means[max(means, key=lambda number: means[number].mean)]
        gains_hold += all(gain.is_within_noise for gain in gains.values())
        assert picked.margin is not None
        mean_holds += abs(picked.mean - 0.9) <= picked.margin
    assert gains_hold / NUM_DRAWS > ENOUGH
    assert mean_holds / NUM_DRAWS > ENOUGH


def test_without_the_correction_the_picked_one_seems_better_too_often() -> None:
    random = np.random.default_rng(0)
    seems_better = is_told_better = 0
    for _ in range(NUM_DRAWS):
        values = draw(random, (7, 5), 0.01, 0.01)
        picked = max(values, key=lambda number: float(np.mean(values[number])))
        if picked != 0:
            pairs = np.subtract(values[picked], values[0])
            error = pairs.std(ddof=1) / 5**0.5
            seems_better += pairs.mean() > t.ppf(0.975, 4) * error
            is_told_better += not estimate_gains(values, 0, SAME_IMAGES)[picked].is_within_noise
    assert seems_better / NUM_DRAWS > 0.06
    assert is_told_better / NUM_DRAWS < 0.04


def test_folds_of_one_train_folder_tell_less_than_as_many_new_images_would() -> None:
    random = np.random.default_rng(0)
    hold = {FOLDS: 0, SAME_IMAGES: 0}
    for _ in range(NUM_DRAWS):
        # All folds share a fifth of the variance, as Nadeau and Bengio assume.
        shared = random.normal(0, 0.005, (4, 1))
        matrix = 0.9 + shared + random.normal(0, 0.01, (4, 6))
        values = {i: row.tolist() for i, row in enumerate(matrix)}
        for images in hold:
            gains = estimate_gains(values, 0, images).values()
            hold[images] += all(gain.is_within_noise for gain in gains)
    assert hold[FOLDS] / NUM_DRAWS > ENOUGH
    assert hold[SAME_IMAGES] / NUM_DRAWS < ENOUGH


def test_few_images_leave_doubt_however_many_the_seeds() -> None:
    random = np.random.default_rng(0)
    num_images, hold = 300, {True: 0, False: 0}
    for _ in range(NUM_DRAWS):
        # Each finalist misclassifies some images, which differ by finalist, with most seeds.
        is_hard = random.random((3, 1, num_images)) < 0.05
        is_right = random.random((3, 6, num_images)) > np.where(is_hard, 0.9, 0.005)
        values = {i: row.tolist() for i, row in enumerate(is_right.mean(axis=2))}
        for known in hold:
            gains = estimate_gains(values, 0, ValImages(num_images, None, known)).values()
            hold[known] += all(gain.is_within_noise for gain in gains)
    assert hold[True] / NUM_DRAWS > ENOUGH
    assert hold[False] / NUM_DRAWS < 0.7


def test_a_gain_is_the_difference_of_the_means_over_the_same_seeds() -> None:
    values = {0: [0.5, 0.7, 0.6], 3: [0.61, 0.8, 0.71]}
    gain = estimate_gains(values, 0, SAME_IMAGES)[3]
    pairs = np.subtract(values[3], values[0])
    margin = t.ppf(0.975, 2) * pairs.std(ddof=1) / 3**0.5
    assert (gain.mean, gain.margin) == (pytest.approx(pairs.mean()), pytest.approx(margin))
    assert not gain.is_within_noise
    assert gain.low == pytest.approx(gain.mean - margin)
    assert gain.high == pytest.approx(gain.mean + margin)


def test_values_that_agree_by_chance_do_not_prove_a_gain() -> None:
    values = {0: [27 / 30, 27 / 30], 1: [28 / 30, 28 / 30]}
    for ratio in (None, 0.25):
        gain = estimate_gains(values, 0, ValImages(30, ratio, values_are_shares=True))[1]
        assert gain.mean == pytest.approx(1 / 30)
        assert gain.is_within_noise


def test_all_images_right_is_not_taken_for_certain() -> None:
    values = {0: [1.0, 1.0], 1: [1.0, 1.0]}
    images = ValImages(30, None, values_are_shares=True)
    mean = estimate_means(values, images)[0]
    assert mean.margin == pytest.approx(0.07, abs=0.02)


def test_one_seed_tells_no_interval() -> None:
    values = {0: [0.5], 1: [0.9]}
    images = ValImages(300, None, values_are_shares=True)
    gain = estimate_gains(values, 0, images)[1]
    assert gain == Estimate(pytest.approx(0.4), None)
    assert (gain.low, gain.high, gain.is_within_noise) == (None, None, True)
    assert estimate_means(values, images)[1] == Estimate(0.9, None)


def test_a_finalist_alone_has_a_mean_with_its_interval() -> None:
    values = {5: [0.9, 0.92, 0.94]}
    (mean,) = estimate_means(values, SAME_IMAGES).values()
    assert mean.margin == pytest.approx(t.ppf(0.975, 2) * 0.02 / 3**0.5)


@dataclass(frozen=True)
class Coverage:
    """Over draws of equally good finalists: shares in which claims hold, and mean margin."""

    gains_hold: float
    mean_of_winner_holds: float
    winner_is_told_better: float
    margin: float


def coverage(sds: list[float], num_seeds: int, num_draws: int = NUM_DRAWS) -> Coverage:
    random = np.random.default_rng(0)
    counts, margins = np.zeros(3), []
    for _ in range(num_draws):
        values = draw(random, (len(sds), num_seeds), 0.01, sds)
        means = estimate_means(values, SAME_IMAGES)
        gains = estimate_gains(values, 0, SAME_IMAGES)
        winner = max(means, key=lambda number: means[number].mean)
        counts += (
            all(gain.is_within_noise for gain in gains.values()),
            abs(means[winner].mean - 0.9) <= (means[winner].margin or 0.0),
            winner != 0 and not gains[winner].is_within_noise,
        )
        margins += [gain.margin or 0.0 for gain in gains.values()]
    return Coverage(*(counts / num_draws).tolist(), float(np.mean(margins)))


@pytest.mark.parametrize("num_seeds", [3, 5])
@pytest.mark.parametrize("num_finalists", [4, 6])
def test_intervals_hold_where_one_finalist_scatters_far_more(
    num_finalists: int, num_seeds: int
) -> None:
    found = coverage([0.01] * (num_finalists - 1) + [0.067], num_seeds)
    assert found.gains_hold > ENOUGH
    assert found.mean_of_winner_holds > ENOUGH
    assert found.winner_is_told_better < 0.041  # three standard deviations above 2.5 %


@pytest.mark.parametrize("num_seeds", [3, 5])
def test_finalists_that_scatter_alike_keep_narrow_intervals(num_seeds: int) -> None:
    found, of_two = coverage([0.01] * 4, num_seeds), coverage([0.01] * 2, num_seeds)
    assert found.margin < 1.2 * of_two.margin
    by_the_truth = t.ppf(1 - 0.025 / 3, 3 * (num_seeds - 1)) * 0.01 * (2 / num_seeds) ** 0.5
    assert found.margin < {3: 1.4, 5: 1.15}[num_seeds] * by_the_truth


@pytest.mark.slow
@pytest.mark.parametrize("num_seeds", [3, 5])
@pytest.mark.parametrize(
    ("sds", "least"),
    [
        ([0.01, 0.01, 0.01, 0.067], 0.948),
        ([0.01, 0.01, 0.01, 0.03], 0.948),
        ([0.01, 0.01, 0.01, 0.01], 0.96),
        ([0.067, 0.01, 0.01, 0.01], 0.925),  # each gain is over the default
    ],
)
def test_the_coverage_that_the_docstring_tells(
    sds: list[float], num_seeds: int, least: float
) -> None:
    found = coverage(sds, num_seeds, num_draws=20_000)
    print(f"{sds} on {num_seeds} seeds: {found}")  # noqa: T201  the figures of the docstring
    assert found.gains_hold > least
