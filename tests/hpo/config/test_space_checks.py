from pathlib import Path

import pytest
from spaces import BASE, DROP, ERASING, FRACTIONS, NAME, POLICY, RATE, space

from hpo.config.search_space import apply_params
from hpo.config.space_checks import check_guess, check_params, check_space
from sgformer.config import DistillationConfig
from sgformer.errors import ConfigError


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"model__nam": NAME}, r"space\.model\.nam: no such setting .*known: model\.name"),
        ({"model": NAME}, r"space\.model: is a section, not a setting; it has name, "),
        ({"model__name": {"type": "categorical", "choices": ["resnet5"]}}, r"'resnet5'.*no su"),
        ({"model__drop_rate": DROP | {"high": 2.0}}, r"drop_rate: does not allow 2\.0"),
        ({"optimizer__learning_rate": RATE | {"high": 1e-4}}, r"0\.0005 lies outside its search"),
        ({"model__drop_path_rate": DROP | {"low": 0.05, "step": 0.15}}, "lies outside its search"),
        ({"data__val_seed": {"type": "int", "low": 0, "high": 3}}, r"cannot be searched; set tra"),
        ({"seed": {"type": "int", "low": 0, "high": 3}}, r"seed: cannot be searched; set train"),
        ({"max_epochs": {"type": "int", "low": 1, "high": 9}}, r"max_epochs: cannot be searched"),
        ({"epoch_images": {"type": "int", "low": 64, "high": 99}}, r"epoch_images: cannot be sea"),
        ({"eval_images": {"type": "int", "low": 64, "high": 99}}, r"eval_images: cannot be searc"),
        ({"data__features": NAME}, r"data\.features: cannot be searched; set train\.data\.featu"),
        ({"model__fusion__dim": {"type": "int", "low": 8, "high": 64}}, r"there are no features"),
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


PRETRAINED = {"type": "categorical", "choices": [True, False]}
CHECKPOINT = {"type": "categorical", "choices": [None, "/a.pth"]}


def test_two_sources_of_weights_in_one_trial_are_refused() -> None:
    both = space(model__pretrained=PRETRAINED, model__checkpoint=CHECKPOINT)
    words = (
        r"space\.model\.checkpoint: .*for '/a\.pth' at once; .*pretrained: \[false\].* \(here\)"
    )
    with pytest.raises(ConfigError, match=words):
        check_space(BASE, both, "here")


@pytest.mark.parametrize("pretrained", [True, False])
def test_a_value_is_checked_beside_its_condition(pretrained: bool) -> None:
    condition = {"when": {"model.pretrained": [False]}}
    apart = space(model__pretrained=PRETRAINED, model__checkpoint=CHECKPOINT | condition)
    check_space(apply_params(BASE, {"model.pretrained": pretrained}, "here"), apart, "here")
    wrong = space(
        model__pretrained=PRETRAINED,
        model__checkpoint=CHECKPOINT | {"when": {"model.pretrained": [True]}},
    )
    with pytest.raises(ConfigError, match=r"space\.model\.checkpoint: does not allow '/a\.pth'"):
        check_space(BASE, wrong, "here")


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


def test_every_batch_size_of_the_space_fits_into_a_virtual_epoch() -> None:
    sizes = {"type": "categorical", "choices": [32, 64, 256]}
    base = apply_params(BASE, {"epoch_images": 128}, "here")
    words = r"space\.optimizer\.batch_size: does not allow 256: .*epoch_images: .*=256, got 128"
    with pytest.raises(ConfigError, match=words):
        check_space(base, space(optimizer__batch_size=sizes), "here")


def test_a_distillation_is_searched_only_with_a_teacher() -> None:
    weight = space(distillation__weight={"type": "float", "low": 0.0, "high": 1.0})
    with pytest.raises(
        ConfigError,
        match=r"^space\.distillation\.weight: there is no teacher; .* train\.distillation\.tea",
    ):
        check_space(BASE, weight, "here")
    teacher = DistillationConfig(teacher=(Path("runs/x/best"),))
    check_space(BASE.model_copy(update={"distillation": teacher}), weight, "here")
