from pathlib import Path

import pytest
from spaces import BASE, space

from hpo.config.freeze_checks import check_freezing
from hpo.config.loading import load_search_config
from sgformer.config import TrainConfig
from sgformer.errors import ConfigError
from sgformer.validation import validate


def choices(*values: object, **when: list[str]) -> dict:
    conditions = {path.replace("__", "."): allowed for path, allowed in when.items()}
    return {"type": "categorical", "choices": list(values), "when": conditions}


def base(**settings: object) -> TrainConfig:
    return validate(TrainConfig, BASE.model_dump() | settings, "test")


MODELS = choices("sg_former_b0", "vit_tiny_patch16_224")
EPOCHS = {"type": "int", "low": 2, "high": 9}


@pytest.mark.parametrize(
    ("settings", "parameters", "message"),
    [
        (
            {"freeze": "stages_5"},
            {},
            r"train\.freeze: sg_former_b0 has 4 stages; .*'stages_5' \(h",
        ),
        (
            {"freeze": "stages_5", "model": {"name": "resnet18"}},
            {},
            r"train\.freeze: resnet18 has 4 stages; .* or stages_1 to stages_4, got 'stages_5'",
        ),
        (
            {},
            {"freeze": choices("none", "stages_6"), "model__name": MODELS},
            r"space\.freeze: sg_former_b0 has 4 stages",
        ),
        ({"freeze": "stages_1", "model": {"name": "rdnet_tiny"}}, {}, r"rdnet_tiny has no stages"),
        ({"unfreeze_epoch": 3}, {}, r"train\.unfreeze_epoch: nothing is frozen, .* epoch 3; set"),
        ({}, {"unfreeze_epoch": EPOCHS}, r"space\.unfreeze_epoch: nothing is frozen"),
        (
            {"freeze": "backbone", "unfreeze_epoch": 11},
            {},
            r"train\.unfreeze_epoch: frozen weights would join after .*at most 10.*got 11",
        ),
        (
            {"freeze": "backbone"},
            {"unfreeze_epoch": EPOCHS | {"high": 12}},
            r"space\.unfreeze_epoch: frozen weights would join after .*got 11",
        ),
    ],
)
def test_freezing_that_cannot_be_is_refused(
    settings: dict, parameters: dict, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_freezing(base(**settings), space(**parameters), 10, "here")


@pytest.mark.parametrize(
    ("settings", "parameters"),
    [
        ({"freeze": "stages_4"}, {}),
        ({"freeze": "stages_12", "model": {"name": "vit_tiny_patch16_224"}}, {}),
        ({"freeze": "backbone", "model": {"name": "rdnet_tiny"}}, {}),
        ({"freeze": "backbone", "unfreeze_epoch": 10}, {}),
        ({"unfreeze_epoch": 3}, {"freeze": choices("none", "backbone")}),
        (
            {},
            {
                "freeze": choices("none", "stages_6", model__name=["vit_tiny_patch16_224"]),
                "model__name": MODELS,
            },
        ),
    ],
)
def test_freezing_that_can_be_is_taken(settings: dict, parameters: dict) -> None:
    check_freezing(base(**settings), space(**parameters), 10, "here")


def test_a_search_file_is_checked_and_its_retraining_too(search_file: Path) -> None:
    frozen = ["train.freeze=backbone", "train.unfreeze_epoch=4"]
    load_search_config(search_file, frozen)
    with pytest.raises(ConfigError, match=r"at most 3, .*retrain\.max_epochs.*got 4 \(.*tiny"):
        load_search_config(search_file, [*frozen, "retrain.max_epochs=3"])


@pytest.mark.parametrize(
    ("overrides", "num_notes"),
    [
        (["train.freeze=backbone"], 1),
        (["space.freeze={type: categorical, choices: [none, stages_1]}"], 1),
        ([], 0),
        (["train.freeze=stages_1", "train.model.checkpoint=/a.pth"], 0),
        (
            [
                "train.freeze=stages_1",
                "space.model.checkpoint={type: categorical, choices: [null, /a.pth]}",
            ],
            0,
        ),
    ],
)
def test_freezing_new_weights_is_noted(
    search_file: Path, overrides: list[str], num_notes: int
) -> None:
    notes = [note for note in load_search_config(search_file, overrides)[1] if "freeze" in note]
    assert len(notes) == num_notes
    for note in notes:
        assert "no trial starts from model.pretrained or model.checkpoint" in note
