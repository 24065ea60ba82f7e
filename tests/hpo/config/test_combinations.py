from hpo.config.combinations import combinations
from hpo.config.search_space import CategoricalParameter, IntParameter

NAME = CategoricalParameter(type="categorical", choices=("a", "b"))


def test_each_combination_that_conditions_allow_is_given_once() -> None:
    space = {
        "model.pretrained": CategoricalParameter(
            type="categorical", choices=(True, False), when={"model.name": ("b",)}
        ),
        "model.name": NAME,
        "optimizer.batch_size": IntParameter(type="int", low=1, high=9),
    }
    found = list(combinations(space, ("model.name", "model.pretrained", "model.checkpoint")))
    assert found == [
        {"model.name": "a"},
        {"model.name": "b", "model.pretrained": True},
        {"model.name": "b", "model.pretrained": False},
    ]


def test_a_condition_on_a_parameter_that_is_not_asked_for_is_left_out() -> None:
    space = {
        "freeze": CategoricalParameter(type="categorical", choices=("none", "backbone")),
        "model.pretrained": CategoricalParameter(
            type="categorical", choices=(True,), when={"freeze": ("backbone",)}
        ),
    }
    assert list(combinations(space, ("model.pretrained",))) == [{}, {"model.pretrained": True}]


def test_a_space_without_the_parameters_has_one_combination() -> None:
    assert list(combinations({"model.name": NAME}, ("model.pretrained",))) == [{}]
