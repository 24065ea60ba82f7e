from typing import Any

from hpo.config.combinations import combinations
from hpo.config.search_space import CategoricalParameter, IntParameter
from sgformer.config import TrainConfig

NAME = CategoricalParameter(type="categorical", choices=("sg_former_pico", "sg_former_nano"))
BASE = TrainConfig.model_validate({"model": {"name": "sg_former_pico"}})


def choice(*choices: Any, **when: str) -> CategoricalParameter:
    conditions = {path.replace("__", "."): (value,) for path, value in when.items()}
    return CategoricalParameter(type="categorical", choices=choices, when=conditions)


def test_each_combination_that_conditions_allow_is_given_once() -> None:
    space = {
        "model.pretrained": choice(True, False, model__name="sg_former_nano"),
        "model.name": NAME,
        "optimizer.batch_size": IntParameter(type="int", low=1, high=9),
    }
    assert combinations(BASE, space, ("model.name", "model.pretrained")) == (
        {"model.name": "sg_former_pico", "model.pretrained": False},
        {"model.name": "sg_former_nano", "model.pretrained": True},
        {"model.name": "sg_former_nano", "model.pretrained": False},
    )


def test_a_condition_on_a_parameter_that_is_not_asked_for_is_left_out() -> None:
    space = {
        "freeze": choice("none", "backbone"),
        "model.pretrained": choice(True, freeze="backbone"),
    }
    found = combinations(BASE, space, ("model.pretrained",))
    assert found == ({"model.pretrained": False}, {"model.pretrained": True})


def test_a_setting_that_is_not_searched_has_the_base_configurations_value() -> None:
    assert combinations(BASE, {"model.name": NAME}, ("data.image_size",)) == (
        {"data.image_size": 224},
    )


def test_whole_numbers_are_listed_and_real_ones_have_examples() -> None:
    space = {"data.image_size": IntParameter(type="int", low=32, high=96, step=32)}
    found = combinations(BASE, space, ("data.image_size",))
    assert [params["data.image_size"] for params in found] == [32, 64, 96]
