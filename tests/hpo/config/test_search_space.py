from pathlib import Path

import optuna
import pytest
from pydantic import ValidationError
from spaces import BASE, BATCH, DROP, ERASING, NAME, POLICY, RATE, space

from hpo.config.search_space import (
    CategoricalParameter,
    apply_params,
    default_params,
    params_key,
    suggest_params,
)
from hpo.config.space_checks import check_params, check_space
from sgformer.errors import ConfigError


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


KEYED = space(
    model__drop_rate={"type": "float", "low": 0.0, "high": 0.5, "step": 0.1},
    optimizer__learning_rate=RATE,
    early_stopping__patience={"type": "int", "low": 1, "high": 9},
    augmentation__policy={"type": "categorical", "choices": ["guide", None]},
)
KNOWN = {
    "model.drop_rate": 0.3, "optimizer.learning_rate": 3e-4, "early_stopping.patience": 3,
    "augmentation.policy": None,
}  # fmt: skip


@pytest.mark.parametrize(
    "same",
    [
        dict(reversed(KNOWN.items())),
        KNOWN | {"model.drop_rate": 0.1 + 0.2},
        KNOWN | {"optimizer.learning_rate": 1e-4 + 1e-4 + 1e-4},
        KNOWN | {"early_stopping.patience": 3.0},
        KNOWN | {"model.depth": 3},
    ],
    ids=["order", "steps", "rounding", "whole", "not searched"],
)
def test_params_of_the_same_training_have_one_key(same: dict) -> None:
    assert params_key(same, KEYED) == params_key(KNOWN, KEYED)
    assert len({params_key(same, KEYED), params_key(KNOWN, KEYED)}) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"model.drop_rate": 0.4},
        {"optimizer.learning_rate": 3.00001e-4},
        {"early_stopping.patience": 4},
        {"augmentation.policy": "guide"},
    ],
)
def test_params_of_different_trainings_have_different_keys(other: dict) -> None:
    assert params_key(KNOWN | other, KEYED) != params_key(KNOWN, KEYED)
    without = {path: value for path, value in KNOWN.items() if path not in other}
    assert params_key(without, KEYED) != params_key(KNOWN, KEYED)


def test_a_path_among_the_choices_may_be_the_default() -> None:
    choices = CategoricalParameter(type="categorical", choices=("a.pth", "b.pth"))
    searched = {"model.checkpoint": choices}
    model = BASE.model.model_copy(update={"checkpoint": Path("b.pth")})
    base = BASE.model_copy(update={"model": model})
    assert default_params(base, searched) == {"model.checkpoint": "b.pth"}
    check_space(base, searched, "search.yaml")


def test_an_open_setting_of_the_default_is_the_models_own_where_the_space_wants_a_value() -> None:
    searched = space(
        data__crop_pct={"type": "float", "low": 0.8, "high": 1.0},
        data__interpolation={"type": "categorical", "choices": ["bicubic", "bilinear"]},
        precision={"type": "categorical", "choices": ["float32", "bf16"]},
    )
    params = default_params(BASE, searched)
    assert params == {
        "data.crop_pct": 0.875, "data.interpolation": "bicubic", "precision": "float32",
    }  # fmt: skip
    check_space(BASE, searched, "here")
    assert apply_params(BASE, params, "here").data.crop_pct == 0.875
    with pytest.raises(ConfigError, match=r"train\.precision: 'auto' lies outside"):
        check_space(
            BASE, space(precision={"type": "categorical", "choices": ["bf16", "fp16"]}), ""
        )


def test_an_open_setting_that_is_among_the_choices_stays_open() -> None:
    searched = space(
        data__crop_pct={"type": "categorical", "choices": [None, 0.9]},
        precision={"type": "categorical", "choices": ["float32", "auto"]},
    )
    assert default_params(BASE, searched) == {"data.crop_pct": None, "precision": "auto"}
