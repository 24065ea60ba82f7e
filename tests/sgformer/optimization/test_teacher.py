import math

import pytest
import torch
from torch import nn

from sgformer.catalog import Preprocessing
from sgformer.model.ensemble import Member
from sgformer.optimization.teacher import Teacher

CPU = torch.device("cpu")
PLAIN = Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "bicubic", 1.0)
OTHER = Preprocessing((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "bicubic", 1.0)


class Fixed(nn.Module):
    """Answers every image with the same logits, and keeps what it was shown."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)
        self.seen = torch.empty(0)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen = images
        return self.logits.expand(len(images), -1)


def member(model: nn.Module, look: Preprocessing = PLAIN, size: int = 4) -> Member:
    return Member(model, look, size, (0, 1))


IMAGES = torch.rand(3, 3, 4, 4)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_it_is_the_divergence_of_the_softened_probabilities(temperature: float) -> None:
    teacher = Teacher([member(Fixed(math.log(4) * temperature, 0.0))], PLAIN, CPU)
    found = teacher.divergence(IMAGES, torch.zeros(3, 2), temperature)
    expected = 0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5)  # nats, of 0.8 and 0.2
    assert found.item() == pytest.approx(3 * temperature**2 * expected, rel=1e-5)


def test_a_student_that_answers_like_its_teacher_has_nothing_to_learn() -> None:
    teacher = Teacher([member(Fixed(3.0, -1.0))], PLAIN, CPU)
    logits = torch.tensor([[5.0, 1.0]]).repeat(3, 1)
    assert teacher.divergence(IMAGES, logits, 2.0).item() == pytest.approx(0, abs=1e-6)


def test_an_ensemble_teaches_its_mean_probabilities() -> None:
    models = [Fixed(math.log(9), 0.0), Fixed(math.log(3 / 7), 0.0)]  # 0.9 and 0.3
    teacher = Teacher([member(one) for one in models], PLAIN, CPU)
    logits = torch.tensor([[math.log(0.6), math.log(0.4)]]).repeat(3, 1)
    assert teacher.divergence(IMAGES, logits, 1.0).item() == pytest.approx(0, abs=1e-6)


def test_classes_in_another_order_are_matched() -> None:
    model = Fixed(2.0, 0.0)
    teacher = Teacher([Member(model, PLAIN, 4, (1, 0))], PLAIN, CPU)
    logits = torch.tensor([[0.0, 2.0]]).repeat(3, 1)
    assert teacher.divergence(IMAGES, logits, 1.0).item() == pytest.approx(0, abs=1e-6)


def test_the_teacher_sees_the_image_with_its_own_normalisation_and_size() -> None:
    model = Fixed(1.0, 0.0)
    teacher = Teacher([member(model, OTHER, size=8)], PLAIN, CPU)
    grey = torch.full((3, 3, 4, 4), 0.5)
    teacher.divergence(grey, torch.zeros(3, 2), 1.0)
    assert model.seen.shape == (3, 3, 8, 8)
    expected = [(0.5 - m) / s for m, s in zip(OTHER.mean, OTHER.std, strict=True)]
    torch.testing.assert_close(model.seen[0].mean((1, 2)), torch.tensor(expected))


def test_only_the_student_gets_gradients() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    teacher = Teacher([member(model)], PLAIN, CPU)
    logits = torch.zeros(3, 2, requires_grad=True)
    teacher.divergence(IMAGES, logits, 1.0).backward()
    assert logits.grad is not None
    assert all(parameter.grad is None for parameter in model.parameters())
