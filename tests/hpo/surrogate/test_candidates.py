import itertools
from collections.abc import Callable

import numpy as np
import pytest

from hpo.config.search_space import (
    CategoricalParameter,
    FloatParameter,
    IntParameter,
    Params,
    Space,
)
from hpo.surrogate.candidates import MAX_LISTED, Candidates
from hpo.surrogate.rows import Observations, ObservedTrial, Phase
from hpo.surrogate.surrogate import Surrogate

STEPS: Space = {
    "rate": FloatParameter(type="float", low=0.0, high=1.0, step=0.05),
    "depth": IntParameter(type="int", low=1, high=20),
    "kind": CategoricalParameter(type="categorical", choices=("a", "b")),
}
ALL: list[Params] = [
    {"rate": round(0.05 * i, 10), "depth": depth, "kind": kind}
    for i, depth, kind in itertools.product(range(21), range(1, 21), ("a", "b"))
]
LEFT = [801]


def observed(candidates: Candidates, left: list[int], params: list[Params] = ALL) -> Observations:
    """Observations of one epoch for all params whose number is not in `left`."""
    trials = {
        number: ObservedTrial(
            candidates.cube.encode(one), {1: 0.1 + number / 1e4}, Phase.PAUSED, 2
        )
        for number, one in enumerate(params)
        if number not in left
    }
    return Observations(trials, 4, frozenset({1, 2, 4}))


def points_of(observations: Observations) -> list[np.ndarray]:
    return [trial.point for trial in observations.trials.values()]


def proposed(candidates: Candidates, observations: Observations) -> Params:
    return Surrogate(candidates, 0, max_rows=60).propose(observations)


@pytest.mark.parametrize("left", [[0], [3], [400], [801], [839], [3, 400, 801]])
def test_of_a_large_grid_what_is_left_is_proposed_and_nothing_else(left: list[int]) -> None:
    assert len(ALL) > MAX_LISTED
    candidates = Candidates(STEPS, 0)
    observations = observed(candidates, left)
    assert not candidates.is_exhausted(points_of(observations))
    assert proposed(candidates, observations) in [pytest.approx(ALL[i]) for i in left]


def test_a_large_grid_is_exhausted_when_all_has_been_tried() -> None:
    candidates = Candidates(STEPS, 0)
    observations = observed(candidates, [])
    assert candidates.is_exhausted(points_of(observations))
    assert proposed(candidates, observations) in [pytest.approx(one) for one in ALL]


@pytest.mark.parametrize(("left", "expected"), [([3], False), ([4], True)])
def test_what_may_not_be_begun_is_not_waited_for(left: list[int], expected: bool) -> None:
    is_allowed: Callable[[Params], bool] = lambda params: params["depth"] != 3  # noqa: E731
    assert ALL[4]["depth"] == 3
    candidates = Candidates(STEPS, 0, is_allowed)
    observations = observed(candidates, left)
    assert candidates.is_exhausted(points_of(observations)) == expected


def test_a_search_that_starts_up_in_a_grid_that_is_nearly_tried_takes_what_is_left() -> None:
    candidates = Candidates(STEPS, 0)
    tried = points_of(observed(candidates, LEFT))
    assert candidates.startup_params(tried) in [pytest.approx(ALL[i]) for i in LEFT]


def test_conditions_make_a_grid_smaller_than_its_parameters() -> None:
    space = STEPS | {
        "rate": FloatParameter(type="float", low=0.0, high=1.0, step=0.05, when={"kind": ("a",)})
    }
    params = [one for one in ALL if one["kind"] == "a"]
    params += [{"depth": depth, "kind": "b"} for depth in range(1, 21)]
    candidates = Candidates(space, 0)
    assert candidates.is_exhausted(points_of(observed(candidates, [], params)))
    observations = observed(candidates, [7], params)
    assert not candidates.is_exhausted(points_of(observations))
    assert proposed(candidates, observations) == pytest.approx(params[7])


def test_a_continuous_space_is_never_exhausted() -> None:
    candidates = Candidates(STEPS | {"rate": FloatParameter(type="float", low=0, high=1)}, 0)
    assert not candidates.is_exhausted(points_of(observed(candidates, [])))


def test_each_point_near_another_differs_from_it() -> None:
    candidates, rng = Candidates(STEPS, 0), np.random.default_rng(0)
    centres = candidates.sobol(64)
    near = candidates.around(centres, np.full(64, 0.2), rng)
    assert near.shape == centres.shape
    assert (candidates.cube.snap(near.copy()) == near).all()
    assert ((near != centres).any(1)).mean() > 0.5


def test_no_point_is_begun_twice_also_where_there_are_infinitely_many() -> None:
    candidates = Candidates({"rate": FloatParameter(type="float", low=0.0, high=1.0)}, 0)
    points = np.array([[0.0], [0.25], [0.5]])
    tried = [np.array([-0.0]), np.array([0.5 + 1e-12])]
    assert candidates.may_begin(points, tried).tolist() == [False, True, False]
    assert candidates.may_begin(points, []).all()


def test_what_was_tried_of_a_grid_is_told_from_what_was_not_also_where_keys_are_rounded() -> None:
    # The middles of 512 equal parts end in a 5 at their tenth decimal.
    space: Space = {"rate": FloatParameter(type="float", low=0.0, high=5.11, step=0.01)}
    candidates = Candidates(space, 0)
    tried = [candidates.cube.encode({"rate": round(0.01 * i, 10)}) for i in range(512)]
    tried_as_decoded = [candidates.cube.encode(candidates.cube.decode(one)) for one in tried]
    assert candidates.is_exhausted(tried)
    assert candidates.is_exhausted(tried_as_decoded)


CONDITIONAL: Space = {
    "kind": CategoricalParameter(type="categorical", choices=("a", "b")),
    "rate": FloatParameter(type="float", low=0.0, high=1.0, when={"kind": ("b",)}),
}


def test_a_startup_begins_no_point_twice_where_a_condition_rules_out_what_is_continuous() -> None:
    candidates, params = Candidates(CONDITIONAL, 0), list[Params]()
    for _ in range(6):
        tried = [candidates.cube.encode(one) for one in params]
        params.append(candidates.startup_params(tried))
    assert params.count({"kind": "a"}) == 1


@pytest.mark.parametrize("seed", range(4))
def test_where_all_that_is_allowed_has_been_tried_what_is_proposed_is_allowed(seed: int) -> None:
    candidates = Candidates(CONDITIONAL, 0, lambda params: params["kind"] == "a")
    observations = observed(candidates, [], [{"kind": "a"}] * 6)
    assert Surrogate(candidates, seed).propose(observations) == {"kind": "a"}
