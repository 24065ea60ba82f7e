import math

import numpy as np
import pytest
from scipy.optimize import check_grad
from threadpoolctl import threadpool_info

from hpo.surrogate.gp import CurveModel, FloatArray, Rows, Scale, on_one_thread

NUMERIC = np.zeros(2, bool)


def curves(num_trials: int = 30, seed: int = 0) -> Rows:
    """Curves that rise to a bowl's value over two parameters, at three times each."""
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
    assert correlations[0, 1] > 0.95  # neighbours turn out alike
    assert correlations[0, 2] < 0.9


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
    apart = np.array([[0.5, 0.5, 0.2], [0.5, 0.5, 0.3]])  # two choices that were never seen
    mean, _ = model.predict(apart, np.ones(2))
    assert mean[0] == pytest.approx(mean[1])


def test_the_fit_goes_by_the_true_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    def take(function, start, **options):
        seen["error"] = check_grad(lambda x: function(x)[0], lambda x: function(x)[1], start)
        seen["size"] = float(np.linalg.norm(function(start)[1]))
        return type("Result", (), {"x": start})

    monkeypatch.setattr("hpo.surrogate.gp.minimize", take)
    CurveModel(curves(), np.array([False, True]))
    assert seen["error"] < 1e-4 * seen["size"]


def test_a_fit_that_goes_on_from_another_comes_to_the_same() -> None:
    rows = curves()
    first = CurveModel(rows, NUMERIC, num_iterations=200)
    second = CurveModel(rows, NUMERIC, first.hyperparameters, num_iterations=200)
    assert second.hyperparameters == pytest.approx(first.hyperparameters, abs=0.05)


def test_predictions_at_several_times_need_the_params_once() -> None:
    model = CurveModel(curves(), NUMERIC)
    points = np.random.default_rng(2).random((5, 2))
    at = model.at(points)
    for times in (np.full(5, 0.3), np.ones(5)):
        for ours, theirs in zip(at.predict(times), model.predict(points, times), strict=True):
            assert ours == pytest.approx(theirs)


@pytest.mark.parametrize("values", [[0.1, 0.5, 0.9], [3.0, 3.0, 3.0], [-5.0], [0.0, 1e9]])
def test_a_scale_keeps_the_order_and_comes_back(values: list[float]) -> None:
    array = np.array(values)
    scale = Scale(array)
    scaled = scale.forward(array)
    assert np.isfinite(scaled).all()
    assert (np.argsort(scaled) == np.argsort(array)).all()
    assert scale.backward(scaled) == pytest.approx(array, abs=1e-6 * np.ptp(array))


def test_a_scale_spreads_the_best_out() -> None:
    scaled = Scale(np.array([0.1, 0.2, 0.5, 0.89, 0.9])).forward(np.array([0.1, 0.2, 0.89, 0.9]))
    assert (scaled[3] - scaled[2]) / (scaled[1] - scaled[0]) > 1 / 10 * 2
    assert math.isclose(scaled[3], scaled.max())


def test_matrices_are_computed_by_one_thread() -> None:
    threads = on_one_thread(threadpool_info)()
    assert {pool["num_threads"] for pool in threads if pool["user_api"] == "blas"} == {1}
