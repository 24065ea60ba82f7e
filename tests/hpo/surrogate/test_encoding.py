import numpy as np
import pytest

from hpo.config.search_space import (
    CategoricalParameter,
    FloatParameter,
    IntParameter,
    Space,
    Value,
)
from hpo.surrogate.encoding import MIDDLE, UnitCube

SPACE: Space = {
    "rate": FloatParameter(type="float", low=1e-4, high=1e-1, log=True),
    "drop": FloatParameter(type="float", low=0.0, high=0.5, step=0.1),
    "erase": FloatParameter(type="float", low=0.0, high=1.0, when={"policy": ("guide",)}),
    "batch": IntParameter(type="int", low=4, high=64, log=True),
    "depth": IntParameter(type="int", low=2, high=8, step=2),
    "policy": CategoricalParameter(type="categorical", choices=("guide", "mild", "none")),
}
PARAMS = {
    "rate": 1e-2, "drop": 0.3, "erase": 0.25, "batch": 20, "depth": 6, "policy": "guide",
}  # fmt: skip


def test_params_come_back_from_their_point() -> None:
    cube = UnitCube(SPACE)
    assert cube.decode(cube.encode(PARAMS)) == pytest.approx(PARAMS)


def test_a_logarithmic_number_lies_by_its_logarithm() -> None:
    cube = UnitCube({"rate": SPACE["rate"]})
    assert cube.encode({"rate": 1e-2}) == pytest.approx([2 / 3])


@pytest.mark.parametrize(
    ("name", "unit", "value"),
    [
        ("rate", 0.0, 1e-4), ("rate", 1.0, 1e-1), ("drop", 0.0, 0.0), ("drop", 1.0, 0.5),
        ("drop", 0.45, 0.2), ("batch", 0.0, 4), ("batch", 1.0, 64), ("depth", 0.49, 4),
        ("depth", 0.99, 8), ("policy", 0.0, "guide"), ("policy", 0.5, "mild"),
        ("policy", 1.0, "none"),
    ],
)  # fmt: skip
def test_every_point_has_params_of_the_space(name: str, unit: float, value: Value) -> None:
    cube = UnitCube({name: SPACE[name]})
    decoded = cube.decode(np.array([unit]))[name]
    assert decoded == (value if isinstance(value, str) else pytest.approx(value))
    assert SPACE[name].contains(decoded)


def test_values_of_a_grid_are_equally_likely() -> None:
    cube = UnitCube({"depth": SPACE["depth"]})
    points = (np.arange(4000)[:, None] + 0.5) / 4000
    depths = [cube.decode(point)["depth"] for point in points]
    assert [depths.count(depth) for depth in (2, 4, 6, 8)] == [1000] * 4


def test_numbers_of_a_grid_that_differ_by_rounding_are_one_point() -> None:
    cube = UnitCube({"drop": FloatParameter(type="float", low=0.1, high=1.0, step=0.1)})
    written = cube.encode({"drop": 0.3})
    assert cube.decode(written) != {"drop": 0.3}
    assert cube.encode(cube.decode(written)).tobytes() == written.tobytes()
    assert cube.snap(written[None]).tobytes() == written.tobytes()


def test_a_snapped_point_is_that_of_its_params() -> None:
    cube = UnitCube(SPACE)
    points = cube.snap(np.random.default_rng(0).random((200, len(SPACE))))
    for point in points:
        params = cube.decode(point)
        assert cube.encode(params) == pytest.approx(point)
        assert ("erase" in params) == (params["policy"] == "guide")


def test_a_parameter_that_does_not_count_lies_in_the_middle() -> None:
    cube = UnitCube(SPACE)
    point = cube.encode({**PARAMS, "policy": "mild"})
    assert "erase" not in cube.decode(point)
    assert cube.snap(point[None])[0, cube.names.index("erase")] == MIDDLE
