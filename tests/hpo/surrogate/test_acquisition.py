import numpy as np
import pytest
from scipy.stats import norm

from hpo.surrogate.acquisition import log_expected_improvement


def test_expected_improvement_is_exact_and_finite_far_off() -> None:
    mean, sd = np.array([0.5, 1.0, 1.5, -3.0]), np.array([0.2, 1.0, 0.1, 0.5])
    z = (mean - 1.0) / sd
    expected = sd * (z * norm.cdf(z) + norm.pdf(z))
    assert np.exp(log_expected_improvement(mean, sd, 1.0)) == pytest.approx(expected, rel=1e-6)
    far = log_expected_improvement(np.array([-1e3, -1e5, -1e9]), np.ones(3), 0.0)
    assert np.isfinite(far).all()
    assert (np.diff(far) < 0).all()
