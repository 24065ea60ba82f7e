import numpy as np
import pytest

from hpo.surrogate.arrays import FloatArray
from hpo.surrogate.gp import CurveModel
from hpo.surrogate.rows import Rows

NUMERIC = np.zeros(2, bool)


def curves(num_trials: int = 30, seed: int = 0) -> Rows:
    """Rows of curves, three times each, that rise to `bowl` of two parameters."""
    rng = np.random.default_rng(seed)
    points = np.repeat(rng.random((num_trials, 2)), 3, axis=0)
    times = np.tile([0.4, 0.7, 1.0], num_trials)
    return Rows(points, times, bowl(points) - 1.5 * (1 - times))


def bowl(points: FloatArray) -> FloatArray:
    values: FloatArray = 1 - 4 * ((points - [0.3, 0.6]) ** 2).sum(1)
    return values


def test_it_tells_the_end_of_curves_that_it_has_seen_the_beginning_of() -> None:
    points = np.random.default_rng(1).random((50, 2))
    seen = curves()
    rows = Rows(
        np.concatenate([seen.points, points]),
        np.concatenate([seen.times, np.full(50, 0.4)]),
        np.concatenate([seen.values, bowl(points) - 0.9]),
    )
    mean, sd = CurveModel(rows, NUMERIC).predict(points, np.ones(50))
    assert np.abs(mean - bowl(points)).mean() < 0.05
    assert (sd < 0.5).all()


def test_it_is_surer_of_what_it_has_seen() -> None:
    rows = curves()
    model = CurveModel(rows, NUMERIC)
    far = np.array([[3.0, 3.0]])
    (_, near_sd), (_, far_sd) = (model.predict(p, np.ones(1)) for p in (rows.points[:1], far))
    assert near_sd < far_sd / 3


def test_what_is_expected_changes_the_spread_and_not_the_mean() -> None:
    model = CurveModel(curves(), NUMERIC)
    point, time = np.array([[0.9, 0.1]]), np.ones(1)
    mean, sd = model.predict(point, time)
    after_mean, after_sd = model.imagining(point, time, np.zeros((1, 1))).predict(point, time)
    assert after_mean[:, 0] == pytest.approx(mean, abs=1e-4)
    assert after_sd < sd


def test_what_is_imagined_is_as_likely_as_the_model_says() -> None:
    model = CurveModel(curves(8), NUMERIC)
    points = np.array([[0.9, 0.1], [0.9, 0.11], [0.1, 0.9]])
    times = np.array([0.4, 0.4, 1.0])
    mean, sd = model.predict(points, times)
    draws = np.random.default_rng(0).standard_normal((3, 4000))
    imagined, _ = model.imagining(points, times, draws).predict(points, times)
    assert imagined.shape == (3, 4000)
    assert imagined.mean(1) == pytest.approx(mean, abs=0.1 * float(sd.max()))
    assert imagined.std(1) == pytest.approx(sd, rel=0.1)
    correlations = np.corrcoef(imagined)
    assert correlations[0, 1] > 0.5  # neighbours have similar values
    assert correlations[0, 2] < correlations[0, 1] - 0.1


def test_it_learns_how_much_of_a_curve_is_its_own() -> None:
    def own_sd(ripple: float) -> float:
        """How unsure it is of a curve beside one that it has seen."""
        rows = curves(40)
        own = np.repeat(np.random.default_rng(1).standard_normal(40), 3)
        model = CurveModel(Rows(rows.points, rows.times, rows.values + ripple * own), NUMERIC)
        beside = rows.points[:1] + 1e-4
        return float(model.predict(beside, np.ones(1))[1][0])

    smooth, rough = own_sd(0.0), own_sd(0.5)
    assert smooth < 0.1
    assert rough == pytest.approx(0.5, rel=0.4)


def test_curves_of_equal_params_share_what_is_their_own() -> None:
    rows = curves(40)
    own = np.repeat(np.random.default_rng(1).standard_normal(40), 3)
    model = CurveModel(Rows(rows.points, rows.times, rows.values + 0.5 * own), NUMERIC)
    at_it, beside = (
        float(model.predict(point, np.ones(1))[1][0])
        for point in (rows.points[:1], rows.points[:1] + 1e-4)
    )
    assert at_it < beside / 3


def test_imagined_is_as_seen() -> None:
    rows, point, time = curves(8), np.array([[0.9, 0.1]]), np.ones(1)
    model = CurveModel(rows, NUMERIC)
    imagining = model.imagining(point, time, np.array([[-1.0, 0.5]]))
    values, _ = imagining.predict(point, time)
    for i, value in enumerate(values[0]):
        seen = Rows(
            np.concatenate([rows.points, point]),
            np.concatenate([rows.times, time]),
            np.append(rows.values, value),
        )
        as_seen = CurveModel(seen, NUMERIC, model.hyperparameters, num_iterations=0)
        elsewhere = np.array([[0.8, 0.2]])
        mean, sd = as_seen.predict(elsewhere, time)
        imagined_mean, imagined_sd = imagining.predict(elsewhere, time)
        assert imagined_mean[:, i] == pytest.approx(mean, abs=0.02)
        assert imagined_sd == pytest.approx(sd)


def test_choices_are_only_equal_or_different() -> None:
    rows = curves()
    points = np.column_stack([rows.points, np.tile([0.1, 0.5, 0.9], len(rows) // 3)])
    is_categorical = np.array([False, False, True])
    model = CurveModel(Rows(points, rows.times, rows.values), is_categorical)
    apart = np.array([[0.5, 0.5, 0.2], [0.5, 0.5, 0.3]])  # two choices that are not in the data
    mean, _ = model.predict(apart, np.ones(2))
    assert mean[0] == pytest.approx(mean[1])


def test_a_fit_that_goes_on_from_another_comes_to_the_same() -> None:
    rows = curves()
    first = CurveModel(rows, NUMERIC, num_iterations=200)
    second = CurveModel(rows, NUMERIC, first.hyperparameters, num_iterations=200)
    assert second.hyperparameters == pytest.approx(first.hyperparameters, abs=0.05)


def test_predictions_at_several_times_of_the_same_points_are_those_of_each_time() -> None:
    rows = curves()
    model = CurveModel(rows, NUMERIC)
    seen, new = rows.points[::3], np.random.default_rng(2).random((3, 2))
    at = model.at(np.concatenate([seen, new]))
    for time in (0.4, 1.0):
        mean, sd = at.predict(np.full(len(seen) + 3, time))
        known = rows.values[rows.times == time]
        assert mean[:-3] == pytest.approx(known, abs=0.02)  # each at its own time
        assert sd[:-3].max() < 0.5 * sd[-3:].max()
