from typing import Any

import optuna
import pytest
from pydantic import TypeAdapter, ValidationError

from hpo.config.search_space import (
    Parameter,
    apply_params,
    check_guess,
    check_params,
    check_space,
    default_params,
    suggest_params,
)
from sgformer.config import TrainConfig
from sgformer.errors import ConfigError

ADAPTER: TypeAdapter[Any] = TypeAdapter(dict[str, Parameter])
BASE = TrainConfig()


def space(**parameters: dict) -> Any:
    """A space; `__` in a name stands for the dot of its path."""
    return ADAPTER.validate_python({k.replace("__", "."): v for k, v in parameters.items()})


RATE = {"type": "float", "low": 1e-5, "high": 1e-2, "log": True}
DROP = {"type": "float", "low": 0.0, "high": 0.5, "step": 0.05}
NAME = {"type": "categorical", "choices": ["sg_former_b0", "sg_former_b1"]}
BATCH = {"type": "int", "low": 16, "high": 256, "log": True}
FRACTIONS = {"type": "float", "low": 32, "high": 256}
POLICY = {"type": "categorical", "choices": ["guide", "mild"]}
ERASING = {"type": "float", "low": 0.0, "high": 0.5, "when": {"augmentation.policy": ["guide"]}}


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ({"type": "float", "low": 1, "high": 0}, "low must be below high, got low=1 and high=0"),
        ({"type": "int", "low": 3, "high": 3}, "low must be below high, got low=3 and high=3"),
        ({"type": "float", "low": 0, "high": 1, "log": True}, "low must be above 0 on a log"),
        (RATE | {"step": 0.1}, "log and step exclude one another"),
        ({"type": "float", "low": 0, "high": 1, "step": 0.3}, "low plus a multiple of step"),
        ({"type": "categorical", "choices": ["a", "a"]}, "choices must differ"),
        ({"type": "categorical", "choices": []}, "at least 1 item"),
        (ERASING | {"when": {"augmentation.policy": []}}, "at least 1 item"),
        ({"type": "categorical", "choices": [{"a": 1}]}, "takes one value"),
        ({"type": "gauss"}, "'float', 'int', 'categorical'"),
    ],
)
def test_impossible_parameters_are_refused(parameter: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        space(model__drop_rate=parameter)


def test_params_are_set_at_their_paths() -> None:
    params = {"optimizer.learning_rate": 3e-4, "model.name": "sg_former_b3", "max_epochs": 7}
    config = apply_params(BASE, params, "here")
    assert config.optimizer.learning_rate == 3e-4
    assert config.model.name == "sg_former_b3"
    assert config.max_epochs == 7
    assert config.optimizer.batch_size == BASE.optimizer.batch_size


def test_params_that_the_config_does_not_allow_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.drop_rate: .*less than 1, got 3\.0 \(here\)"):
        apply_params(BASE, {"model.drop_rate": 3.0}, "here")


def test_the_default_params_are_the_base_configurations() -> None:
    searched = space(optimizer__learning_rate=RATE, model__name=NAME)
    assert default_params(BASE, searched) == {
        "optimizer.learning_rate": BASE.optimizer.learning_rate,
        "model.name": BASE.model.name,
    }


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"model__nam": NAME}, r"space\.model\.nam: no such setting .*known: model\.name"),
        ({"model": NAME}, r"space\.model: is a section, not a setting; it has name, "),
        ({"model__name": {"type": "categorical", "choices": ["resnet50"]}}, r"'resnet50'.*no su"),
        ({"model__drop_rate": DROP | {"high": 2.0}}, r"drop_rate: does not allow 2\.0"),
        ({"optimizer__learning_rate": RATE | {"high": 1e-4}}, r"0\.0005 lies outside its search"),
        ({"model__drop_path_rate": DROP | {"low": 0.05, "step": 0.15}}, "lies outside its search"),
        ({"data__val_seed": {"type": "int", "low": 0, "high": 3}}, r"cannot be searched; set tra"),
        ({"seed": {"type": "int", "low": 0, "high": 3}}, r"seed: cannot be searched; set train"),
        ({"max_epochs": {"type": "int", "low": 1, "high": 9}}, r"max_epochs: cannot be searched"),
        ({"data__image_size": {"type": "int", "low": 32, "high": 256}}, r"allow 33: .*multiple"),
        ({"optimizer__batch_size": FRACTIONS}, r"does not allow .*\.\d+: .*fraction"),
        ({"optimizer__warmup_epochs": {"type": "int", "low": 0, "high": 51}}, "at most 50, half"),
        ({"label_smoothing": ERASING}, r"when: 'augmentation\.policy' is not an unconditional"),
        (
            {"augmentation__policy": POLICY, "label_smoothing": ERASING | {"when": {
                "augmentation.policy": ["none"]}}},
            r"when: 'none' is no choice of augmentation\.policy \(guide, mild\)",
        ),
    ],
)  # fmt: skip
def test_a_space_that_training_does_not_allow_is_refused(parameters: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_space(BASE, space(**parameters), "here")


def test_params_outside_the_space_are_refused() -> None:
    searched = space(model__drop_rate=DROP)
    check_params({"model.drop_rate": 0.15}, searched, "study.enqueue", "here")
    with pytest.raises(ConfigError, match=r"enqueue\.model\.drop_rate: 0\.17 lies outside"):
        check_params({"model.drop_rate": 0.17}, searched, "study.enqueue", "here")
    with pytest.raises(
        ConfigError, match=r"model\.drop: is not searched; nearest known: model\.d"
    ):
        check_params({"model.drop": 0.1}, searched, "study.enqueue", "here")


GUESSED = space(
    model__drop_rate=DROP,
    early_stopping__patience={"type": "int", "low": 1, "high": 9},
    augmentation__policy=POLICY,
    augmentation__random_erasing=ERASING,
)


@pytest.mark.parametrize(
    ("guess", "message"),
    [
        ({}, r"study\.enqueue: a guess sets no parameter; set one of model\.drop_rate"),
        ({"model.drop": 0.1}, r"enqueue\.model\.drop: is not searched"),
        (
            {"early_stopping.patience": "abc"},
            r"stopping\.patience: 'abc' lies outside",
        ),
        (
            {"early_stopping.patience": None},
            r"stopping\.patience: None lies outside",
        ),
        (
            {"early_stopping.patience": 2.5},
            r"stopping\.patience: 2\.5 lies outside",
        ),
        (
            {"early_stopping.patience": True},
            r"stopping\.patience: True lies outside",
        ),
        ({"model.drop_rate": "x"}, r"enqueue\.model\.drop_rate: 'x' lies outside"),
        (
            {"augmentation.policy": "mild", "augmentation.random_erasing": 0.5},
            r"erasing: counts only when augmentation\.policy is one of guide, and the guess sets "
            r"it to 'mild'",
        ),
        ({"augmentation.random_erasing": 0.5}, r"guide, and the guess leaves it out; set it to"),
    ],
)
def test_a_guess_that_cannot_be_tried_is_refused(guess: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_guess(guess, GUESSED, "study.enqueue", "here")


@pytest.mark.parametrize(
    "guess",
    [
        {"early_stopping.patience": 3.0},
        {"early_stopping.patience": 2},
        {"augmentation.policy": "guide", "augmentation.random_erasing": 0.5},
    ],
)
def test_a_guess_that_lies_in_the_space_is_taken(guess: dict) -> None:
    check_guess(guess, GUESSED, "study.enqueue", "here")


def test_choices_that_yaml_reads_as_text_are_numbers() -> None:
    searched = space(optimizer__learning_rate={"type": "categorical", "choices": ["1e-3", "5e-4"]})
    assert searched["optimizer.learning_rate"].examples() == (1e-3, 5e-4)
    check_space(BASE, searched, "here")


def test_samples_lie_in_the_space() -> None:
    searched = space(
        optimizer__learning_rate=RATE, model__drop_rate=DROP, model__name=NAME,
        optimizer__batch_size=BATCH,
    )  # fmt: skip
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        params = suggest_params(study.ask(), searched)
        check_params(params, searched, "sample", "here")
        apply_params(BASE, params, "here")


def test_a_conditional_parameter_is_sampled_only_where_it_counts() -> None:
    searched = space(augmentation__random_erasing_prob=ERASING, augmentation__policy=POLICY)
    check_space(
        apply_params(BASE, {"augmentation.random_erasing_prob": 0.25}, "here"), searched, "here"
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    samples = [suggest_params(study.ask(), searched) for _ in range(20)]
    assert {len(p) for p in samples} == {1, 2}
    for params in samples:
        expected = params["augmentation.policy"] == "guide"
        assert ("augmentation.random_erasing_prob" in params) is expected
