import numpy as np
import pytest
import torch
from PIL import Image

from sgformer.augmentation import eval_transform, train_transform
from sgformer.config import AugmentationConfig, DataConfig

DATA = DataConfig(image_size=64)
IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 73, 3), dtype=np.uint8))


def names(augmentation: AugmentationConfig) -> list[str]:
    return [type(step).__name__ for step in train_transform(DATA, augmentation).transforms]


@pytest.mark.parametrize("policy", ["guide", "mild", "none"])
def test_every_policy_gives_a_normalised_tensor(policy: str) -> None:
    out = train_transform(DATA, AugmentationConfig(policy=policy))(IMAGE)  # type: ignore[arg-type]
    assert out.shape == (3, 64, 64)
    assert out.dtype == torch.float32


def test_the_guide_is_the_briefs() -> None:
    steps = {
        type(step).__name__: step
        for step in train_transform(DATA, AugmentationConfig()).transforms
    }
    assert "RandomHorizontalFlip" in steps
    assert repr(steps["RandomResizedCropAndInterpolation"]).count("bicubic") == 1
    assert steps["RandAugment"].ops[0].magnitude == 9
    assert steps["RandAugment"].ops[0].magnitude_std == 0.5
    erasing = steps["RandomErasing"]
    assert (erasing.probability, erasing.max_count, erasing.per_pixel) == (0.25, 1, True)


def test_mild_only_crops() -> None:
    assert names(AugmentationConfig(policy="mild")) == [
        "RandomResizedCropAndInterpolation",
        "MaybeToTensor",
        "Normalize",
    ]


def test_a_number_replaces_the_policys_own() -> None:
    off = AugmentationConfig(
        rand_augment_magnitude=0, random_erasing_prob=0, horizontal_flip_prob=0
    )
    assert not {"RandAugment", "RandomErasing", "RandomHorizontalFlip"} & set(names(off))


def test_none_is_the_evaluations() -> None:
    transform = train_transform(DATA, AugmentationConfig(policy="none"))
    assert torch.equal(transform(IMAGE), eval_transform(DATA)(IMAGE))


def test_evaluation_crops_the_centre_of_what_crop_pct_leaves() -> None:
    image = Image.fromarray(np.full((80, 80, 3), 255, np.uint8))
    out = eval_transform(DataConfig(image_size=64, mean=(0, 0, 0), std=(1, 1, 1)))(image)
    assert torch.equal(out, torch.ones(3, 64, 64))
