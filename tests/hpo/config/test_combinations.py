from typing import Any

from spaces import POLICY, space

from hpo.config.combinations import combinations
from hpo.config.search_space import CategoricalParameter, IntParameter
from sgformer.config import TrainConfig

NAME = CategoricalParameter(type="categorical", choices=("sg_former_pico", "sg_former_nano"))
TRAIN = TrainConfig()
BASE = TrainConfig.model_validate({"model": {"name": "sg_former_pico"}})


def choice(*choices: Any, **when: str) -> CategoricalParameter:
    conditions = {path.replace("__", "."): (value,) for path, value in when.items()}
    return CategoricalParameter(type="categorical", choices=choices, when=conditions)


def test_each_combination_that_conditions_allow_is_given_once() -> None:
    searched = {
        "model.pretrained": choice(True, False, model__name="sg_former_nano"),
        "model.name": NAME,
        "optimizer.batch_size": IntParameter(type="int", low=1, high=9),
    }
    assert combinations(BASE, searched, ("model.name", "model.pretrained")) == (
        {"model.name": "sg_former_pico", "model.pretrained": False},
        {"model.name": "sg_former_nano", "model.pretrained": True},
        {"model.name": "sg_former_nano", "model.pretrained": False},
    )


def test_a_condition_on_a_parameter_that_is_not_asked_for_is_left_out() -> None:
    searched = {
        "freeze": choice("none", "backbone"),
        "model.pretrained": choice(True, freeze="backbone"),
    }
    found = combinations(BASE, searched, ("model.pretrained",))
    assert found == ({"model.pretrained": False}, {"model.pretrained": True})


def test_only_combinations_that_a_trial_can_have_are_listed() -> None:
    names = {"type": "categorical", "choices": ["sg_former_b0", "sg_former_b1"]}
    sizes = {"type": "int", "low": 64, "high": 128, "step": 64}
    paths = ("model.name", "data.image_size")

    def pairs(**parameters: dict) -> list[tuple]:
        found = combinations(TRAIN, space(**parameters), paths)
        return [tuple(params.values()) for params in found]

    assert pairs() == [("sg_former_b0", 224)]
    assert pairs(model__name=names, data__image_size=sizes) == [
        ("sg_former_b0", 64), ("sg_former_b0", 128), ("sg_former_b1", 64), ("sg_former_b1", 128),
    ]  # fmt: skip
    for_b1 = sizes | {"when": {"model.name": ["sg_former_b1"]}}
    assert pairs(model__name=names, data__image_size=for_b1) == [
        ("sg_former_b0", 224), ("sg_former_b1", 64), ("sg_former_b1", 128),
    ]  # fmt: skip
    # A third parameter rules the name: where it is not searched, the base's counts.
    for_guide = names | {"choices": ["sg_former_b1"], "when": {"augmentation.policy": ["guide"]}}
    assert pairs(augmentation__policy=POLICY, model__name=for_guide) == [
        ("sg_former_b1", 224), ("sg_former_b0", 224),
    ]  # fmt: skip
    rates = combinations(
        TRAIN,
        space(model__drop_rate={"type": "float", "low": 0.0, "high": 0.5}),
        ("model.drop_rate",),
    )
    assert len(rates) == 3  # examples of a continuous parameter
