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
