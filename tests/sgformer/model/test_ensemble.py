import math

import pytest
import torch
from torch import nn

from sgformer.catalog import Preprocessing
from sgformer.model.ensemble import Ensemble, Member

PLAIN = Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "bicubic", 1.0)
OTHER = Preprocessing((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "bicubic", 1.0)
IMAGES = torch.rand(3, 3, 8, 8)


class Fixed(nn.Module):
    """Answers every image with the same logits, and keeps what it was shown."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)
        self.seen = torch.empty(0)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen = images
        return self.logits.expand(len(images), -1)


def member(*logits: float, order: tuple[int, ...] = (0, 1)) -> Member:
    return Member(Fixed(*logits), PLAIN, 8, order)


def test_the_softmax_of_an_ensemble_is_the_mean_of_its_members_probabilities() -> None:
    ensemble = Ensemble([member(math.log(9), 0.0), member(0.0, math.log(4))], PLAIN)
    found = ensemble(IMAGES).softmax(1)
    torch.testing.assert_close(found, torch.tensor([[0.55, 0.45]]).expand(3, 2))


def test_a_very_sure_member_of_an_ensemble_has_one_vote() -> None:
    sure, others = member(1e4, 0.0), [member(0.0, math.log(9)) for _ in range(2)]
    found = Ensemble([sure, *others], PLAIN)(IMAGES)
    assert found.isfinite().all()
    assert found.softmax(1)[0].tolist() == pytest.approx([0.4, 0.6])


def test_an_ensemble_matches_members_whose_classes_are_in_another_order() -> None:
    ensemble = Ensemble([member(0.0, 2.0), member(2.0, 0.0, order=(1, 0))], PLAIN)
    torch.testing.assert_close(ensemble(IMAGES).softmax(1)[0], torch.tensor([0.0, 2.0]).softmax(0))


def test_each_member_of_an_ensemble_sees_its_own_size_and_normalisation() -> None:
    small = Fixed(1.0, 0.0)
    ensemble = Ensemble([member(0.0, 1.0), Member(small, OTHER, 4, (0, 1))], PLAIN)
    ensemble(torch.full((2, 3, 8, 8), 0.5))
    assert small.seen.shape == (2, 3, 4, 4)
    expected = [(0.5 - m) / s for m, s in zip(OTHER.mean, OTHER.std, strict=True)]
    torch.testing.assert_close(small.seen[0].mean((1, 2)), torch.tensor(expected))
