import pytest

from hpo.config.combinations import grid_points
from hpo.config.search_space import (
    CategoricalParameter,
    FloatParameter,
    IntParameter,
    Params,
    Space,
)
from hpo.samplers.grid import Grid
from sgformer.errors import ConfigError

SPACE: Space = {
    "mixup": FloatParameter(
        type="float", low=0.0, high=0.3, step=0.1, when={"policy": ("guide",)}
    ),
    "policy": CategoricalParameter(type="categorical", choices=("mild", "guide", None)),
    "size": IntParameter(type="int", low=2, high=6, step=2),
}


def test_a_grid_has_every_configuration_once() -> None:
    points = grid_points(SPACE)
    sizes = (2, 4, 6)
    expected: list[Params] = [
        {"policy": policy, "size": size} for policy in ("mild", None) for size in sizes
    ]
    expected += [
        {"policy": "guide", "size": size, "mixup": mixup}
        for size in sizes
        for mixup in (0.0, 0.1, 0.2, 0.3)
    ]
    assert len(points) == len(expected) == 18
    assert all(params in points for params in expected)


def test_each_configuration_is_given_until_it_is_taken() -> None:
    source = Grid(SPACE, seed=3)
    source.take({"policy": "guide", "size": 4, "mixup": 0.1 + 0.2})  # 0.30000000000000004
    given = []
    for _ in range(17):
        assert not source.is_exhausted
        given.append(source.next_params())
        assert source.next_params() == given[-1]
        source.take(given[-1])
    assert source.is_exhausted
    assert {"policy": "guide", "size": 4, "mixup": 0.3} not in given
    assert all(given.count(params) == 1 for params in given)


def test_the_order_depends_on_the_seed_alone() -> None:
    assert Grid(SPACE, 1).next_params() == Grid(SPACE, 1).next_params()
    assert len({str(Grid(SPACE, seed).next_params()) for seed in range(8)}) > 3


def test_a_continuous_parameter_is_refused() -> None:
    space = {**SPACE, "rate": FloatParameter(type="float", low=1e-4, high=0.1, log=True)}
    with pytest.raises(ConfigError, match=r"space\.rate is continuous \(0\.0001\.\.0\.1\); give"):
        grid_points(space)


def test_too_many_configurations_are_refused() -> None:
    with pytest.raises(ConfigError, match="more than 17 configurations; choose larger steps"):
        grid_points(SPACE, max_points=17)
