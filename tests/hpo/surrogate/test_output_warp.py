import math

import numpy as np
import pytest

from hpo.surrogate.output_warp import OutputWarp


@pytest.mark.parametrize("values", [[0.1, 0.5, 0.9], [3.0, 3.0, 3.0], [-5.0], [0.0, 1e9]])
def test_a_warp_keeps_the_order_and_comes_back(values: list[float]) -> None:
    array = np.array(values)
    warp = OutputWarp(array)
    scaled = warp.forward(array)
    assert np.isfinite(scaled).all()
    assert (np.argsort(scaled) == np.argsort(array)).all()
    assert warp.backward(scaled) == pytest.approx(array, abs=1e-6 * np.ptp(array))


def test_a_warp_spreads_the_best_out() -> None:
    warp = OutputWarp(np.array([0.1, 0.2, 0.5, 0.89, 0.9]))
    scaled = warp.forward(np.array([0.1, 0.2, 0.89, 0.9]))
    assert (scaled[3] - scaled[2]) / (scaled[1] - scaled[0]) > 1 / 10 * 2
    assert math.isclose(scaled[3], scaled.max())


@pytest.mark.parametrize("jitter", [0.0, 1e-9, 1e-6])
def test_ties_at_the_best_do_not_hide_what_the_others_differ_by(jitter: float) -> None:
    best = 0.93 - jitter * np.arange(5)
    warp = OutputWarp(np.array([*best, 0.9, 0.87, 0.8, 0.6]))
    scaled = warp.forward(np.array([0.93, 0.9, 0.87, 0.8, 0.6]))
    gaps = -np.diff(scaled)
    assert gaps.min() > 0.2  # standard deviations
    assert warp.backward(scaled[:1] + 2.0)[0] - 0.93 > 0.02  # 2 sd above the best


@pytest.mark.parametrize("values", [[0.5, 0.7, 0.8, 0.9], [0.93] * 5 + [0.9, 0.8], [0.5] * 3])
def test_a_gain_has_no_ceiling(values: list[float]) -> None:
    warp = OutputWarp(np.array(values))
    best = warp.forward(np.array([max(values)]))
    gains = [float(warp.backward(best + more)[0]) - max(values) for more in (0, 1, 2, 4, 8)]
    assert gains[0] == pytest.approx(0, abs=1e-9)
    assert np.diff(gains, 2).min() >= -1e-9 * max(gains)  # slopes never fall
    assert gains[4] > 3 * gains[2] > 0


def test_without_ties_the_warp_is_by_the_median() -> None:
    values = np.array([0.2, 0.5, 0.7, 0.85, 0.9])
    warped = -np.log1p(2 * (0.9 - values) / 0.2)
    expected = (warped - warped.mean()) / warped.std()
    assert OutputWarp(values).forward(values) == pytest.approx(expected)
