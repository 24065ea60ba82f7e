import pytest
import timm
import torch
from torch import nn

from sgformer.errors import ConfigError
from sgformer.model.stages import frozen_names, head_names, num_stages, stage_names

# By model: its number of stages, and a tensor of the stem, of the last stage and of the head.
MODELS = {
    "sg_former_pico": (4, "pos_embed", "stages.3.norm.bias", "head.bias"),
    "resnet18": (4, "bn1.running_mean", "layer4.1.bn2.running_var", "fc.bias"),
    "convnext_atto": (4, "stem.0.weight", "stages.3.blocks.1.gamma", "head.fc.bias"),
    "tf_efficientnet_lite0": (7, "conv_stem.weight", "bn2.bias", "classifier.bias"),
    "vit_tiny_patch16_224": (12, "cls_token", "norm.bias", "head.bias"),
    "deit_tiny_distilled_patch16_224": (12, "dist_token", "norm.bias", "head_dist.bias"),
    "swin_tiny_patch4_window7_224": (
        4,
        "patch_embed.proj.bias",
        "layers.3.blocks.1.attn.relative_position_index",
        "head.fc.bias",
    ),
}


def on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model(name, num_classes=5)


@pytest.mark.parametrize("name", MODELS)
def test_stem_stages_and_head_are_told_apart(name: str) -> None:
    count, in_stem, in_last, in_head = MODELS[name]
    model = on_meta(name)
    stages = stage_names(model)
    assert num_stages(name) == count == len(stages) - 1
    assert in_stem in stages[0]
    assert in_last in stages[-1]
    assert in_head in head_names(model)
    assert len(frozenset().union(*stages)) == sum(map(len, stages))


@pytest.mark.parametrize("name", MODELS)
def test_the_backbone_is_all_but_the_head(name: str) -> None:
    model = on_meta(name)
    every = {n for n, _ in (*model.named_parameters(), *model.named_buffers())}
    assert frozen_names(model, name, "backbone") == every - head_names(model)
    assert frozen_names(model, name, "none") == frozenset()


def test_stages_are_the_stem_and_the_first_ones() -> None:
    names = frozen_names(on_meta("resnet18"), "resnet18", "stages_2")
    parts = {name.split(".")[0] for name in names}
    assert parts == {"conv1", "bn1", "layer1", "layer2"}


@pytest.mark.parametrize(
    ("name", "freeze", "message"),
    [
        ("resnet18", "stages_5", r"resnet18 has 4 stages; .*stages_1 to stages_4, got 'stages_5'"),
        ("rdnet_tiny", "stages_1", r"rdnet_tiny has no stages that timm tells apart; take none"),
    ],
)
def test_more_stages_than_the_model_has_are_refused(name: str, freeze: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        frozen_names(on_meta(name), name, freeze)
