"""The model that a training's configuration describes."""

import timm

import sgformer.model.sizes  # noqa: F401  registers the models with timm
from sgformer.config import TrainConfig
from sgformer.model.sg_former import SGFormer


def create_model(config: TrainConfig, num_classes: int) -> SGFormer:
    """The configured model with newly initialised weights."""
    model = timm.create_model(
        config.model.name,
        num_classes=num_classes,
        img_size=config.data.image_size,
        **config.model.model_dump(exclude={"name"}),
    )
    assert isinstance(model, SGFormer)
    return model
