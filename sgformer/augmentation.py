"""timm's transforms for training and evaluation, by policy."""

from collections.abc import Callable
from typing import Any, Final

import torch
from PIL import Image
from timm.data import create_transform

from sgformer.config import AugmentationConfig, DataConfig

Transform = Callable[[Image.Image], torch.Tensor]
# guide: the brief's defaults. mild: tiny images (digits, 32 pixels) lose what matters under
# the guide's colour and erasing, and a flipped digit is another one.
POLICIES: Final[dict[str, dict[str, float]]] = {
    "guide": {
        "color_jitter": 0.4,
        "rand_augment_magnitude": 9,
        "random_erasing_prob": 0.25,
        "horizontal_flip_prob": 0.5,
        "min_crop_area": 0.08,
    },
    "mild": {
        "color_jitter": 0,
        "rand_augment_magnitude": 0,
        "random_erasing_prob": 0,
        "horizontal_flip_prob": 0,
        "min_crop_area": 0.7,
    },
}


def train_transform(data: DataConfig, augmentation: AugmentationConfig) -> Transform:
    """From a decoded image to a normalised (3, H, W) tensor, at random."""
    if augmentation.policy == "none":
        return eval_transform(data)
    numbers = POLICIES[augmentation.policy] | augmentation.model_dump(
        exclude={"policy"}, exclude_none=True
    )
    magnitude = numbers["rand_augment_magnitude"]
    min_area = numbers["min_crop_area"]
    return _create(
        data,
        is_training=True,
        scale=(min_area, 1.0),
        ratio=(3 / 4, 4 / 3) if augmentation.policy == "guide" else (0.9, 1.1),
        hflip=numbers["horizontal_flip_prob"],
        color_jitter=numbers["color_jitter"] or None,
        auto_augment=f"rand-m{magnitude:g}-mstd0.5" if magnitude else None,
        re_prob=numbers["random_erasing_prob"],
        re_mode="pixel",
        re_count=1,
    )


def eval_transform(data: DataConfig) -> Transform:
    """From a decoded image to a normalised (3, H, W) tensor: resize, centre crop."""
    return _create(data, is_training=False, crop_pct=data.crop_pct)


def _create(data: DataConfig, **options: Any) -> Transform:
    size = (3, data.image_size, data.image_size)
    transform: Transform = create_transform(
        size, interpolation="bicubic", mean=data.mean, std=data.std, **options
    )
    return transform
