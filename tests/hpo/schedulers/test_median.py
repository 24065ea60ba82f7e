import math

import pytest

from hpo.config.schema import SchedulerConfig
from hpo.schedulers.median import MIN_OTHERS, MedianStopping

OTHERS = [0.1, 0.2, 0.3, 0.4, 0.5]


def goes_on(
    rule: MedianStopping, number: int, curve: dict[int, float], costs: tuple[float, ...] = ()
) -> bool:
    return rule.stops_at(number, curve, costs) is None


def median(others: list[float], sign: float = 1.0) -> MedianStopping:
    """A rule that has seen trials 1, 2, ..., each with its value after all of three epochs."""
    config = SchedulerConfig(name="median", min_epochs=2)
    rule = MedianStopping(config, maximise=sign > 0)
    for number, value in enumerate(others, 1):
        goes_on(rule, number, dict.fromkeys((1, 2, 3), sign * value))
    return rule


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(("best", "is_kept"), [(0.25, False), (0.3, True), (0.35, True)])
def test_a_trial_stops_below_the_median(sign: float, best: float, is_kept: bool) -> None:
    assert goes_on(median(OTHERS, sign), 9, {1: sign * best, 2: sign * 0.1}) == is_kept


def test_what_counts_of_others_is_the_average_on_the_way() -> None:
    rule = median([])
    for number in range(1, 6):
        goes_on(rule, number, {1: 0.0, 2: 0.4})
    assert goes_on(rule, 8, {1: 0.2})
    assert goes_on(rule, 8, {1: 0.2, 2: 0.0})  # the others average 0.2, though all are at 0.4 now
    assert not goes_on(rule, 9, {1: 0.19, 2: 0.0})


def test_none_stops_before_min_epochs_or_with_few_to_compare_with() -> None:
    assert goes_on(median(OTHERS), 9, {1: 0.0})
    assert goes_on(median(OTHERS[: MIN_OTHERS - 1]), 9, {1: 0.0, 2: 0.0})
    assert goes_on(median(OTHERS), 9, {})


def test_those_that_did_not_come_so_far_are_not_compared_with() -> None:
    assert goes_on(median(OTHERS), 9, {1: 0.9, 2: 0.9, 3: 0.9, 4: 0.0})
    rule = median(OTHERS)
    goes_on(rule, 9, {1: 0.9, 2: 0.9, 3: 0.9, 4: 0.9})
    assert goes_on(rule, 10, dict.fromkeys((1, 2, 3, 4), 0.5))


def test_the_default_is_never_stopped_but_counts() -> None:
    assert goes_on(median(OTHERS), 0, {1: 0.0, 2: 0.0})
    rule = median(OTHERS[:4])
    goes_on(rule, 0, {1: 0.0, 2: 0.0})
    assert not goes_on(rule, 9, {1: 0.19, 2: 0.1})


def test_a_curve_of_nan_is_the_worst() -> None:
    rule = median(OTHERS)
    assert not goes_on(rule, 8, {1: math.nan, 2: math.nan})
    assert goes_on(rule, 9, {1: 0.3, 2: math.nan})


def test_epochs_told_together_are_judged_at_each_of_them() -> None:
    rule = median(OTHERS)
    assert not goes_on(rule, 9, {1: 0.1, 2: 0.1, 3: 0.9})
    assert goes_on(rule, 9, {1: 0.1, 2: 0.1, 3: 0.9})  # trial 9 was judged already


def test_restored_curves_decide_alike() -> None:
    whole, restored = median(OTHERS), median([])
    for number, value in enumerate(OTHERS, 1):
        goes_on(restored, number, dict.fromkeys(range(1, 9), value))
    for value in (0.28, 0.3, 0.4):
        assert goes_on(whole, 9, {2: value}) == goes_on(restored, 9, {2: value})
