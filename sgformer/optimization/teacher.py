"""A teacher: trained models whose probabilities another model learns beside the labels."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from sgformer.catalog import Preprocessing
from sgformer.model.ensemble import Ensemble, Member


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
        self._ensemble = Ensemble(members, look).to(device).eval()
        self._num_known = min(len(one.order) for one in members)

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
        each = [F.softmax(one / temperature, dim=1) for one in self._ensemble.each(images)]
        return torch.stack(each).mean(0)
