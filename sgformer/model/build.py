"""The model that a training's configuration describes."""

from typing import Any

import timm
from torch import nn

import sgformer.model.sizes  # noqa: F401  registers SG-Former's models with timm
from sgformer.catalog import check_image_size, model_facts
from sgformer.config import TrainConfig
from sgformer.model.fusion import with_fusion


def create_model(config: TrainConfig, num_classes: int) -> nn.Module:
    """The configured model with newly initialised weights.

    Raises:
        ConfigError: timm has no such model, or it takes no images of this size, or no features.
    """
    name = config.model.name
    facts = model_facts(name)
    check_image_size(name, config.data.image_size)
    arguments: dict[str, Any] = config.model.model_dump(include=set(facts.rates))
    if facts.takes_img_size:
        arguments["img_size"] = config.data.image_size
    model: nn.Module = timm.create_model(name, num_classes=num_classes, **arguments)
    if config.model.fusion.num_features is not None:
        return with_fusion(model, config.model.fusion, name)
    return model
