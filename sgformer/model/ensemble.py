"""Several trained models as one: each sees the image as it was trained, and their mean answers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import nn

from sgformer.catalog import Preprocessing

PREFIX: Final = "models."  # of the names of members' tensors: models.0.head.weight


@dataclass(frozen=True)
class Member:
    """A model of an ensemble or of a teacher.

    Attributes:
        model: The model, in eval mode.
        look: Mean and standard deviation of its input.
        image_size: Pixels of a side of its input.
        order: The position of each of the ensemble's classes among the model's outputs.
        name: The model's name.
    """

    model: nn.Module
    look: Preprocessing
    image_size: int
    order: tuple[int, ...]
    name: str = ""


class View(nn.Module):
    """Turns normalised images into the input of a model that was trained on others.

    Args:
        look: Mean and standard deviation of the images that come in.
        member: The model; its crop of an image is not made anew.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, look: Preprocessing, member: Member) -> None:
        super().__init__()
        mean, std, own_mean, own_std = (
            torch.tensor(rgb).view(3, 1, 1)
            for rgb in (look.mean, look.std, member.look.mean, member.look.std)
        )
        self._size = member.image_size
        self._is_equal = (look.mean, look.std) == (member.look.mean, member.look.std)
        self.register_buffer("scale", std / own_std, persistent=False)
        self.register_buffer("shift", (mean - own_mean) / own_std, persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if not self._is_equal:
            images = torch.addcmul(self.shift, images, self.scale)
        if images.shape[-1] != self._size:
            size = (self._size, self._size)
            images = F.interpolate(images, size, mode="bilinear", antialias=True)
        return images


class Ensemble(nn.Module):
    """Answers with the logarithm of the mean of its members' probabilities.

    The softmax of that is the mean itself, so it stands wherever a model's logits do.
    Source: Lakshminarayanan, Pritzel and Blundell, arXiv:1612.01474, section 2.4.

    Args:
        members: The models; the first one's classes and their order are the ensemble's.
        look: Mean and standard deviation of the images that come in.
    """

    def __init__(self, members: Sequence[Member], look: Preprocessing) -> None:
        super().__init__()
        self.models = nn.ModuleList(one.model for one in members)
        self.views = nn.ModuleList(View(look, one) for one in members)
        self.members = tuple(members)
        for i, one in enumerate(members):
            self.register_buffer(f"order_{i}", torch.tensor(one.order), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        each = [F.log_softmax(logits, dim=1) for logits in self.each(images)]
        return mean_of_log_probabilities(torch.stack(each))

    def each(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Each member's logits (B, classes) float32, in the ensemble's order of classes."""
        return [
            self._ordered(i, model(view(images)).float())
            for i, (model, view) in enumerate(zip(self.models, self.views, strict=True))
        ]

    def _ordered(self, i: int, logits: torch.Tensor) -> torch.Tensor:
        if self.members[i].order == tuple(range(logits.shape[1])):
            return logits
        return logits[:, self.get_buffer(f"order_{i}")]


def mean_of_log_probabilities(log_probabilities: torch.Tensor) -> torch.Tensor:
    """The logarithm of the mean probabilities (B, classes), of the members' (M, B, classes)."""
    return torch.logsumexp(log_probabilities, dim=0) - math.log(len(log_probabilities))
