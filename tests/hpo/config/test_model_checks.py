"""Tests that the models of a search are checked before it starts."""

import subprocess
import sys
from typing import Any

import pytest
from spaces import BASE, DROP, space

from hpo.config.search_space import apply_params
from hpo.config.space_checks import check_space
from sgformer.errors import ConfigError

Params = dict[str, Any]


def choices(*values: object, **when: list[object]) -> Params:
    parameter = {"type": "categorical", "choices": list(values)}
    return parameter | ({"when": {"model.name": when["models"]}} if when else {})


def check(parameters: Params, settings: Params) -> None:
    check_space(apply_params(BASE, settings, "here"), space(**parameters), "here")


MIXED = choices("sg_former_b0", "test_resnet", "test_vit")
DROP_FOR_VIT = DROP | {"when": {"model.name": ["sg_former_b0", "test_vit"]}}
RESNET = {"model.name": "test_resnet"}


@pytest.mark.parametrize(
    ("parameters", "settings", "message"),
    [
        (
            {"model__name": MIXED, "model__attn_drop_rate": DROP}, {},
            r"^space\.model\.attn_drop_rate: test_resnet takes no attn_drop_rate; search it only "
            r"for the others: when: \{model\.name: \[sg_former_b0, test_vit\]\} \(here\)$",
        ),
        (
            {"model__attn_drop_rate": DROP}, RESNET,
            r"^space\.model\.attn_drop_rate: test_resnet takes no attn_drop_rate; it takes "
            r"drop_rate and drop_path_rate; leave it out",
        ),
        (
            {"model__name": choices("test_resnet", "test_convnext"),
             "model__proj_drop_rate": DROP}, RESNET,
            r"test_resnet and test_convnext take no proj_drop_rate; they take drop_rate and dr",
        ),
        (
            {"model__name": MIXED}, {"model.proj_drop_rate": 0.1},
            r"^train\.model\.proj_drop_rate: is 0\.1, but test_resnet takes no proj_drop_rate "
            r"\(it takes drop_rate and drop_path_rate\); set it to 0, or search it for the "
            r"others: when: \{model\.name: \[sg_former_b0, test_vit\]\}",
        ),
        ({}, RESNET | {"model.attn_drop_rate": 0.1}, r"drop_path_rate\); set it to 0 \(here\)$"),
        (
            {"model__name": MIXED, "data__image_size": choices(224, 100)}, {},
            r"^space\.data\.image_size: does not allow 100 with model\.name=sg_former_b0: ",
        ),
        (
            {"model__name": MIXED, "data__image_size": choices(224, 100, models=["test_vit"])}, {},
            r"allow 100 with model\.name=test_vit: test_vit takes no images of 100 pixels; it was "
            r"made for 160, and of the sizes near 100 it takes 96, 112 \(here\)$",
        ),
        (
            {"data__image_size": {"type": "int", "low": 32, "high": 40}},
            {"model.name": "test_vit", "data.image_size": 32},
            r"^space\.data\.image_size: does not allow 33: test_vit takes no images of 33 pixels",
        ),
        (
            {"model__name": choices("test_resnet", "test_vit")},
            RESNET | {"data.image_size": 100},
            r"^space\.model\.name: does not allow 'test_vit': test_vit takes no images of 100",
        ),
        (
            {}, {"model.name": "test_vit", "data.image_size": 100},
            r"^train\.data\.image_size: test_vit takes no images of 100",
        ),
        (
            {"model__name": choices("sg_former_b0", "mobilenetv5_300m_enc")}, {},
            r"^space\.model\.name: does not allow 'mobilenetv5_300m_enc': .*no classifier of im",
        ),
        ({}, {"model.name": "mobilenetv5_300m_enc"}, r"^train\.model\.name: .*no classifier of i"),
        ({}, RESNET | {"optimizer.batch_size": 1}, r"^train\.optimizer\.batch_size: does not all"),
        (
            {"optimizer__batch_size": {"type": "int", "low": 1, "high": 64}}, RESNET,
            r"^space\.optimizer\.batch_size: does not allow 1 with test_resnet, whose BatchNorm ",
        ),
        (
            {}, {"model.name": "vgg11", "grad_checkpointing": True},
            r"^train\.grad_checkpointing: is true, but vgg11 has no gradient checkpointing; set "
            r"it to false, or take other models \(here\)$",
        ),
        (
            {"model__name": choices("sg_former_b0", "vgg11", "test_resnet", "dla34")},
            {"grad_checkpointing": True},
            r"^train\.grad_checkpointing: is true, but vgg11 and dla34 have no gradient ",
        ),
        (
            {}, {"model.name": "deit_tiny_distilled_patch16_224", "data.features": "a.csv"},
            r"^train\.model\.name: deit_tiny_distilled.* takes no features beside images, because",
        ),
        (
            {"model__name": choices("sg_former_b0", "deit_tiny_distilled_patch16_224")},
            {"data.features": "a.csv"},
            r"^space\.model\.name: deit_tiny_distilled.* takes no features beside images, because",
        ),
        (
            {"model__name": choices("sg_former_b0", "hf-hub:timm/test_resnet")}, {},
            r"no prefix such as 'timm/' or 'hf-hub:', got 'hf-hub:timm/test_resnet'; write .*"
            r"'test_resnet'",
        ),
    ],
)  # fmt: skip
def test_what_a_model_does_not_take_is_refused(
    parameters: Params, settings: Params, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check(parameters, settings)


@pytest.mark.parametrize(
    ("parameters", "settings"),
    [
        ({"model__name": MIXED, "model__attn_drop_rate": DROP_FOR_VIT}, {}),
        ({"model__name": MIXED, "model__drop_path_rate": DROP}, {}),
        # A rate that is searched for the others is left out for the ResNet.
        (
            {"model__name": MIXED, "model__attn_drop_rate": DROP_FOR_VIT},
            {"model.attn_drop_rate": 0.1},
        ),
        (
            {
                "model__name": MIXED,
                "data__image_size": choices(224, 100, 50, models=["test_resnet"]),
            },
            {},
        ),
        ({"model__name": MIXED}, {"grad_checkpointing": True}),
        ({}, {"model.name": "vgg11"}),
        # A batch of one image is the SG-Former's only.
        (
            {
                "model__name": MIXED,
                "optimizer__batch_size": choices(1, 64, models=["sg_former_b0"]),
            },
            {},
        ),
    ],
)
def test_what_is_searched_for_some_models_only_concerns_these(
    parameters: Params, settings: Params
) -> None:
    check(parameters, settings)


def test_a_search_over_our_own_models_imports_no_torch() -> None:
    script = (
        "import sys\n"
        "from spaces import BASE, DROP, NAME, space\n"
        "from hpo.config.space_checks import check_space\n"
        "searched = space(model__name=NAME, model__attn_drop_rate=DROP, data__image_size="
        "{'type': 'int', 'low': 32, 'high': 256, 'step': 32})\n"
        "check_space(BASE, searched, 'here')\n"
        "assert not {'torch', 'timm'} & set(sys.modules)\n"
    )
    support = next(path for path in sys.path if path.endswith("support"))
    subprocess.run(
        [sys.executable, "-c", f"import sys\nsys.path.insert(0, {support!r})\n{script}"],
        check=True,
    )
