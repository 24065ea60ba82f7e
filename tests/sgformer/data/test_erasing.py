import random

import numpy as np
import torch
from scipy.stats import ks_2samp
from timm.data.random_erasing import RandomErasing

from sgformer.data.erasing import NO_PATCH, draw_patch, erase

NUM_DRAWS = 3000
SIDE = 48


def timms_patches(probability: float) -> np.ndarray:
    """(draws, 4) top, left, height and width that timm's erasing draws; zeros for none."""
    erasing = RandomErasing(probability, mode="pixel", max_count=1, device="cpu")
    patches = np.zeros((NUM_DRAWS, 4), int)
    for patch in patches:
        rows, columns = torch.nonzero(erasing(torch.zeros(1, SIDE, SIDE))[0], as_tuple=True)
        if len(rows):
            top, left = int(rows.min()), int(columns.min())
            patch[:] = top, left, int(rows.max()) - top + 1, int(columns.max()) - left + 1
    return patches


def test_patches_are_distributed_as_timms() -> None:
    random.seed(0)
    theirs = timms_patches(0.6)
    ours = np.array([draw_patch(0.6, SIDE, SIDE)[:4] for _ in range(NUM_DRAWS)])
    assert abs((ours[:, 2] > 0).mean() - (theirs[:, 2] > 0).mean()) < 0.04
    ours, theirs = ours[ours[:, 2] > 0], theirs[theirs[:, 2] > 0]
    for i in range(4):
        assert ks_2samp(ours[:, i], theirs[:, i]).pvalue > 0.001
    areas, other_areas = (patches[:, 2] * patches[:, 3] for patches in (ours, theirs))
    assert ks_2samp(areas, other_areas).pvalue > 0.001


def test_the_numbers_and_the_draws_are_timms() -> None:
    for seed in range(50):
        random.seed(seed)
        top, left, height, width, _ = draw_patch(1.0, SIDE, 64)
        random.seed(seed)
        image = torch.zeros(1, SIDE, 64)
        RandomErasing(1.0, mode="pixel", max_count=1, device="cpu")(image)
        expected = torch.zeros(SIDE, 64, dtype=torch.bool)
        expected[top : top + height, left : left + width] = True
        assert torch.equal(image[0] != 0, expected)


def test_no_probability_draws_no_patch_and_certainty_one_a_picture() -> None:
    assert {draw_patch(0.0, SIDE, SIDE) for _ in range(99)} == {NO_PATCH}
    assert NO_PATCH not in {draw_patch(1.0, SIDE, SIDE) for _ in range(99)}


def test_the_noise_depends_on_the_images_seed_and_not_on_its_batch() -> None:
    patches = torch.tensor([[1, 2, 3, 4, 11], [0, 0, 5, 6, 12], [3, 3, 3, 3, 13]])
    together = torch.zeros(3, 3, 8, 8)
    erase(together, patches)
    for i in (2, 0, 1):
        alone = torch.zeros(1, 3, 8, 8)
        erase(alone, patches[i : i + 1])
        assert torch.equal(alone[0], together[i])
    assert not torch.equal(together[0, :, 1:4, 2:5], together[2, :, 3:6, 3:6])
