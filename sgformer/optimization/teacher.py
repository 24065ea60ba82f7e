"""A teacher: trained models whose probabilities another model learns beside the labels."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from sgformer.catalog import Preprocessing


@dataclass(frozen=True)
class Member:
    """A model of a teacher.

    Attributes:
        model: The model, in eval mode.
        look: Mean and standard deviation of its input.
        image_size: Pixels of a side of its input.
        order: The position of each of the student's classes among the model's outputs; in an
            extension only of the first ones, which are those that the model knows.
    """

    model: nn.Module
    look: Preprocessing
    image_size: int
    order: tuple[int, ...]


class Teacher:
    """Models that see each image as the student does; several are an ensemble.

    Args:
        members: The models.
        look: Mean and standard deviation of the student's input.
        device: Where the student is trained.
    """

    def __init__(
        self, members: Sequence[Member], look: Preprocessing, device: torch.device
    ) -> None:
        self._models = [one.model.to(device).eval() for one in members]
        self._views = [_View(look, one, device) for one in members]
        self._num_known = min(len(one.order) for one in members)
        self._orders = [torch.tensor(one.order, device=device) for one in members]

    def divergence(
        self, images: torch.Tensor, logits: torch.Tensor, temperature: float
    ) -> torch.Tensor:
        """The Kullback-Leibler divergence of the student from the teacher in nats, over the batch.

        Only the classes count that the teacher knows, as if the student knew no others.
        It is multiplied by the square of the temperature, so that its gradient stays as large as
        that of the labels' loss. Source: Hinton, Vinyals and Dean, arXiv:1503.02531, section 2.

        Args:
            images: The student's input, (B, 3, H, W).
            logits: The student's answers, (B, classes) float32.
            temperature: Divides all logits before the softmax.
        """
        student = F.log_softmax(logits[:, : self._num_known] / temperature, dim=1)
        target = self._probabilities(images, temperature)
        return temperature**2 * F.kl_div(student, target, reduction="sum")

    @torch.no_grad()
    def _probabilities(self, images: torch.Tensor, temperature: float) -> torch.Tensor:
        """The mean of the models' probabilities, (B, classes)."""
        each = [
            F.softmax(model(view(images)).float()[:, order] / temperature, dim=1)
            for model, view, order in zip(self._models, self._views, self._orders, strict=True)
        ]
        return torch.stack(each).mean(0)


class _View:
    """Turns the student's input into that of a model of the teacher."""

    def __init__(self, look: Preprocessing, member: Member, device: torch.device) -> None:
        mean, std, own_mean, own_std = (
            torch.tensor(rgb, device=device).view(3, 1, 1)
            for rgb in (look.mean, look.std, member.look.mean, member.look.std)
        )
        self._size = member.image_size
        self._is_equal = (look.mean, look.std) == (member.look.mean, member.look.std)
        self._scale, self._shift = std / own_std, (mean - own_mean) / own_std

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        if not self._is_equal:
            images = torch.addcmul(self._shift, images, self._scale)
        if images.shape[-1] != self._size:
            size = (self._size, self._size)
            images = F.interpolate(images, size, mode="bilinear", antialias=True)
        return images
