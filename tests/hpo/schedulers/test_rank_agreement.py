import itertools
import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from hpo.schedulers.rank_agreement import EXACT, agreements
from hpo.surrogate.arrays import FloatArray


def table(num: int, correlation: float, num_late: int, seed: int) -> FloatArray:
    """(num, 2) early and late values; only the `num_late` best early ones have a late value."""
    rng = np.random.default_rng(seed)
    normal = 2 * math.sin(math.pi * correlation / 6)
    early = rng.standard_normal(num)
    late = normal * early + math.sqrt(1 - normal**2) * rng.standard_normal(num)
    late[np.argsort(-early)[num_late:]] = math.nan
    return np.column_stack([early, late])


def test_of_whole_curves_the_estimate_is_about_spearmans() -> None:
    for seed in range(20):
        whole = table(30, 0.6, 30, seed)
        found, last = agreements([whole])
        assert found is not None
        assert found.estimate == pytest.approx(spearmanr(*whole.T)[0], abs=0.08)
        assert found.low < found.estimate < found.high
        assert last == EXACT


@pytest.mark.parametrize(("num", "num_late"), [(40, 40), (40, 8), (100, 8), (100, 40)])
@pytest.mark.parametrize("truth", [0.33, 0.58, 0.79])
def test_a_bound_is_on_the_wrong_side_of_the_truth_as_often_as_one_standard_error_is(
    truth: float, num: int, num_late: int
) -> None:
    found = [agreements([table(num, truth, num_late, seed)])[0] for seed in range(400)]
    above = np.mean([one.low > truth for one in found if one])
    below = np.mean([one.high < truth for one in found if one])
    # 0.16, a normal variable's share beyond one standard error, plus some standard errors (0.02)
    # of a share of 400 tables.
    assert above < 0.16 + 3 * 0.02
    assert below < 0.16 + 4 * 0.02
    assert abs(float(np.median([one.estimate for one in found if one])) - truth) < 0.1


def test_over_several_rungs_of_ever_fewer_trials_the_estimate_stays_near_the_truth() -> None:
    estimates, wrong = [], 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        values = [rng.standard_normal(80)]
        for _ in range(2):
            values.append(0.8 * values[-1] + 0.6 * rng.standard_normal(80))
        rows = np.array(values).T
        alive = np.argsort(-rows[:, 0])[:30]
        rows[np.setdiff1d(np.arange(80), alive), 1:] = math.nan
        alive = alive[np.argsort(-rows[alive, 1])[:12]]
        rows[np.setdiff1d(np.arange(80), alive), 2] = math.nan
        found = agreements([rows])[0]
        assert found is not None
        estimates.append(found.estimate)
        wrong += found.low > 0.62 or found.high < 0.62
    assert float(np.median(estimates)) == pytest.approx(0.62, abs=0.08)
    assert wrong / 300 < 0.4


@pytest.mark.parametrize("num_late", [0, 1, 3])
def test_a_study_with_too_few_late_trials_has_no_say(num_late: int) -> None:
    few, enough = table(12, 0.9, num_late, 0), table(12, -0.9, 12, 1)
    assert agreements([few])[0] is None
    assert agreements([few] * 9 + [enough]) == agreements([enough])


def test_where_all_late_values_are_alike_nothing_is_told() -> None:
    alike = table(12, 0.9, 12, 0)
    alike[:, 1] = 0.5
    assert agreements([alike])[0] is None


def test_a_rung_where_all_values_are_alike_says_nothing_of_later_ones() -> None:
    rows = np.column_stack([table(40, 0.9, 40, 0), table(40, 0.9, 40, 1)])
    rows[:, :2] = 0.5
    found = agreements([rows])[0]
    assert found is not None
    assert found.estimate == 0
    assert found.high < 0.1


def test_where_all_early_values_are_alike_they_say_nothing_of_late_ones() -> None:
    alike = table(12, 0.9, 12, 0)
    alike[:, 0] = 0.5
    found = agreements([alike])[0]
    assert found is not None
    assert found.estimate == 0
    assert found.low < 0 < found.high


def test_more_studies_make_the_error_smaller() -> None:
    widths = []
    for num in (1, 4, 16):
        found = agreements([table(20, 0.5, 10, seed) for seed in range(num)])[0]
        assert found is not None
        widths.append(found.high - found.low)
    assert all(later < earlier for earlier, later in itertools.pairwise(widths))


def test_a_perfect_order_of_few_trials_is_no_proof() -> None:
    for num, low in ((4, 0.1), (8, 0.9)):
        found = agreements([np.tile(np.arange(float(num))[:, None], 2)])[0]
        assert found is not None
        assert found.estimate == pytest.approx(1.0)
        assert low < found.low < low + 0.5
