import pytest

from hpo.config.search_space import (
    CategoricalParameter,
    FloatParameter,
    IntParameter,
    Params,
    Space,
    Value,
)
from hpo.transfer.remap import Outside, remap

SPACE: Space = {
    "erasing": FloatParameter(type="float", low=0.0, high=0.3, step=0.1, when={"policy": ("a",)}),
    "policy": CategoricalParameter(type="categorical", choices=("a", "b", None)),
    "patience": IntParameter(type="int", low=2, high=8, step=2),
    "rate": FloatParameter(type="float", low=1e-4, high=1e-2, log=True),
}
VALUES: Params = {"erasing": 0.2, "policy": "a", "patience": 4, "rate": 1e-3, "other": 7}
INSIDE = {path: VALUES[path] for path in SPACE}


@pytest.mark.parametrize("outside", Outside)
def test_what_lies_in_the_space_is_taken_as_it_is(outside: Outside) -> None:
    assert remap(VALUES, SPACE, outside) == pytest.approx(INSIDE)


@pytest.mark.parametrize("outside", Outside)
@pytest.mark.parametrize("policy", ["b", None])
def test_a_parameter_that_is_not_active_is_left_out(outside: Outside, policy: Value) -> None:
    params = remap(VALUES | {"policy": policy, "erasing": 5.0}, SPACE, outside)
    assert params == pytest.approx({"policy": policy, "patience": 4, "rate": 1e-3})


@pytest.mark.parametrize(
    ("values", "nearest"),
    [
        ({"rate": 0.5}, {"rate": 1e-2}),
        ({"rate": 1e-9}, {"rate": 1e-4}),
        ({"erasing": 0.24}, {"erasing": 0.2}),
        ({"patience": 99}, {"patience": 8}),
        ({"patience": 5.5}, {"patience": 6}),
    ],
)
def test_a_number_outside_is_refused_or_moved_to_the_nearest_inside(
    values: Params, nearest: Params
) -> None:
    assert remap(VALUES | values, SPACE, Outside.REFUSED) is None
    assert remap(VALUES | values, SPACE, Outside.MOVED) == pytest.approx(INSIDE | nearest)


@pytest.mark.parametrize("outside", Outside)
@pytest.mark.parametrize("values", [{"policy": "c"}, {"rate": "fast"}, {"patience": None}])
def test_what_has_nothing_near_it_inside_is_refused(outside: Outside, values: Params) -> None:
    assert remap(VALUES | values, SPACE, outside) is None


@pytest.mark.parametrize("outside", Outside)
def test_what_lies_beyond_an_end_by_rounding_is_the_end(outside: Outside) -> None:
    params = remap(VALUES | {"erasing": 0.1 + 0.2}, SPACE, outside)
    assert params is not None
    assert params["erasing"] == 0.3
