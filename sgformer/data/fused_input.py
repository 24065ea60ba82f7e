"""What a model is given: images, or images with features."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn


class FusedInput(NamedTuple):
    """Images with features, as tensors or as arrays.

    Attributes:
        images: (B, 3, H, W).
        features: (B, size) as the table has them; a row with NaN is missing.
    """

    images: Any
    features: Any


Given = torch.Tensor | FusedInput  # what a model is called with


def each(given: Any, change: Callable[[Any], Any]) -> Any:
    """The input with its images, and any features, changed alike."""
    return FusedInput(*map(change, given)) if isinstance(given, FusedInput) else change(given)


def images_of(given: Any) -> Any:
    """The images of an input."""
    return given.images if isinstance(given, FusedInput) else given


def variants(given: Any) -> tuple[Any, ...]:
    """The input, and where it has features the image alone and the features alone."""
    if not isinstance(given, FusedInput):
        return (given,)
    images, features = given
    return given, FusedInput(images, features * math.nan), FusedInput(images * math.nan, features)


def answer(model: nn.Module, given: Given) -> torch.Tensor:
    """The model's logits (B, classes)."""
    logits: torch.Tensor = model(*given) if isinstance(given, FusedInput) else model(given)
    return logits


def split(given: Given, sizes: Sequence[int]) -> list[Given]:
    """The input in parts of these numbers of images."""
    if not isinstance(given, FusedInput):
        return list(given.split(list(sizes)))
    parts = (tensor.split(list(sizes)) for tensor in given)
    return [FusedInput(*pair) for pair in zip(*parts, strict=True)]
