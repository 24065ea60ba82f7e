import numpy as np
import pytest

from hpo.surrogate.arrays import FloatArray
from hpo.surrogate.cost_model import MAX_TIMED, EpochCosts

IS_CATEGORICAL = np.array([False, True])


def seconds_of(point: FloatArray) -> float:
    """Seconds of an epoch: up to 4 times as long by the first coordinate, 8 times by a choice."""
    return float(4 ** point[0] * (8.0 if point[1] > 0.5 else 1.0))


def made_points(num: int) -> dict[int, FloatArray]:
    rng = np.random.default_rng(0)
    return {number: np.array([rng.random(), rng.choice([0.25, 0.75])]) for number in range(num)}


def learnt_of(points: dict[int, FloatArray]) -> EpochCosts:
    costs = EpochCosts(IS_CATEGORICAL)
    costs.learn(points, {number: seconds_of(point) for number, point in points.items()})
    return costs


def test_nothing_costs_more_than_another_while_nothing_is_timed() -> None:
    costs = EpochCosts(IS_CATEGORICAL)
    points = made_points(3)
    costs.learn(points, {})
    costs.learn(points, {0: 0.0, 7: 2.0})  # trial 0 has no time, trial 7 does not exist
    assert costs.log_seconds(np.array(list(points.values()))).tolist() == [0, 0, 0]


def test_one_timed_trial_is_what_all_are_expected_to_take() -> None:
    costs = EpochCosts(IS_CATEGORICAL)
    costs.learn(made_points(1), {0: 3.0})
    new = np.array(list(made_points(5).values()))
    assert np.exp(costs.log_seconds(new)) == pytest.approx(3.0)


@pytest.mark.parametrize(("num_timed", "rel"), [(12, 0.3), (40, 0.05), (2 * MAX_TIMED, 0.02)])
def test_it_tells_what_new_configurations_take(num_timed: int, rel: float) -> None:
    costs = learnt_of(made_points(num_timed))
    new = np.array([[0.1, 0.25], [0.5, 0.25], [0.9, 0.75], [0.3, 0.75]])
    expected = [seconds_of(point) for point in new]
    assert np.exp(costs.log_seconds(new)) == pytest.approx(expected, rel=rel)


@pytest.mark.parametrize("num_timed", [3, 20])
def test_learnt_at_once_or_trial_by_trial_it_is_the_same(num_timed: int) -> None:
    points = made_points(num_timed)
    step_by_step = EpochCosts(IS_CATEGORICAL)
    for number in range(num_timed // 2, num_timed):
        so_far = {n: points[n] for n in range(number + 1)}
        # The first epochs of a trial are slow.
        slow = {n: 1.0 + (n > number - 3) for n in so_far}
        step_by_step.learn(so_far, {n: slow[n] * seconds_of(p) for n, p in so_far.items()})
    step_by_step.learn(points, {n: seconds_of(point) for n, point in points.items()})
    new = np.array(list(made_points(8).values()))
    at_once = learnt_of(points).log_seconds(new)
    assert step_by_step.log_seconds(new).tolist() == at_once.tolist()
