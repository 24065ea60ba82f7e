import numpy as np
import pytest
import torch

from sgformer.training.occlusion import occlusion_map, with_heat


def marked(size: int = 64) -> torch.Tensor:
    """A grey image with a white mark, which fills the cell of row 5 and column 2."""
    image = torch.full((3, size, size), 100, dtype=torch.uint8)
    image[:, 5 * size // 8 : 6 * size // 8, 2 * size // 8 : 3 * size // 8] = 255
    return image


def sure_of_white(images: torch.Tensor) -> torch.Tensor:
    """A made classifier: the probability of class 1 grows with the number of white pixels."""
    white = (images == 255).all(1).float().mean((1, 2)) * 64
    return torch.stack([1 - 0.9 * white, 0.9 * white], dim=1)


@pytest.mark.parametrize("size", [64, 71])
def test_the_map_finds_the_mark_that_the_class_rests_on(size: int) -> None:
    heat = occlusion_map(sure_of_white, marked(size), label=1)
    assert np.unravel_index(heat.argmax(), heat.shape) == (5, 2)
    assert heat[5, 2] == pytest.approx(0.9, abs=0.25)
    assert np.abs(heat[:4]).max() == np.abs(heat[:, 4:]).max() == 0
    # To the other class the mark is in the way.
    other = occlusion_map(sure_of_white, marked(size), label=0)
    assert other == pytest.approx(-heat, abs=1e-6)


def test_the_image_is_coloured_there_and_nowhere_else() -> None:
    image = marked().permute(1, 2, 0).numpy()
    coloured = with_heat(image, occlusion_map(sure_of_white, marked(), label=1))
    changed = np.abs(coloured.astype(int) - image).max(2)
    assert changed[44, 20] > 50
    assert changed[:24].max() == changed[:, 48:].max() == 0


def test_an_image_without_any_drop_stays_as_it_is() -> None:
    image = marked().permute(1, 2, 0).numpy()
    heat = occlusion_map(sure_of_white, marked(), label=0)
    assert np.array_equal(with_heat(image, heat), image)
