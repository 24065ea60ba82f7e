import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.stats import multivariate_normal

from hpo.surrogate.kernel import curve_kernel, noise, params_kernel, priors
from hpo.surrogate.likelihood import NegativeLogPosterior
from hpo.surrogate.rows import Rows

IS_CATEGORICAL = np.array([False, True])


def rows(num: int = 40) -> Rows:
    rng = np.random.default_rng(0)
    points = np.column_stack([rng.random(num), rng.choice([0.25, 0.75], num)])
    return Rows(points, rng.choice([0.4, 0.7, 1.0], num), rng.standard_normal(num))


def some_theta(seed: int) -> np.ndarray:
    means, sds = priors(2)
    theta: np.ndarray = means + sds * np.random.default_rng(seed).standard_normal(len(means))
    return theta


@pytest.mark.parametrize("seed", range(4))
def test_the_gradient_is_that_of_the_value(seed: int) -> None:
    loss, theta = NegativeLogPosterior(rows(), IS_CATEGORICAL), some_theta(seed)
    error = check_grad(lambda x: loss(x)[0], lambda x: loss(x)[1], theta)
    assert error < 1e-4 * float(np.linalg.norm(loss(theta)[1]))


def test_differences_of_values_are_those_of_the_normal_density_and_the_prior() -> None:
    data, loss = rows(), NegativeLogPosterior(rows(), IS_CATEGORICAL)
    means, sds = priors(2)
    losses, expected = [], []
    for seed in range(4):
        theta = some_theta(seed)
        over_params = params_kernel(data.points, data.points, IS_CATEGORICAL, theta)
        kernel = curve_kernel(over_params, data.times, data.times, theta)
        kernel += noise(theta) * np.eye(len(data))
        density = multivariate_normal(np.zeros(len(data)), kernel).logpdf(data.values)
        expected.append(-density + 0.5 * (((theta - means) / sds) ** 2).sum())
        losses.append(loss(theta)[0])
    assert np.diff(losses) == pytest.approx(np.diff(expected), rel=1e-6)


def test_the_minimum_is_no_worse_than_where_the_fit_began() -> None:
    loss, start = NegativeLogPosterior(rows(), IS_CATEGORICAL), some_theta(0)
    found = loss.minimum(start, 50)
    assert loss(found)[0] < loss(start)[0]
    assert np.linalg.norm(loss(found)[1]) < 0.1 * np.linalg.norm(loss(start)[1])
