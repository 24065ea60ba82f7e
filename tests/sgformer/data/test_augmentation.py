from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp
from sklearn.datasets import load_sample_images
from timm.data import create_transform

from sgformer.catalog import Preprocessing
from sgformer.config import AugmentationConfig, TrainConfig
from sgformer.data.augmentation import (
    BatchMixer,
    CropAndResize,
    erasing_prob,
    eval_transform,
    train_transform,
)
from sgformer.data.erasing import draw_patch
from sgformer.data.loader import Batch
from sgformer.data.model_input import ModelInput
from sgformer.data_config import DataConfig
from sgformer.images.decoding import decode_image
from sgformer.seeding import seed_everything
from sgformer.sources.source import read_content


def prepared(**values: Any) -> DataConfig:
    return DataConfig(**values).with_preprocessing(Preprocessing())


DATA = prepared(image_size=64)
IMAGE = np.random.default_rng(0).integers(0, 255, (90, 73, 3), dtype=np.uint8)


def steps_of(augmentation: AugmentationConfig) -> dict[str, object]:
    steps = train_transform(DATA, augmentation).transforms  # type: ignore[attr-defined]
    return {type(step).__name__: step for step in steps}


@pytest.mark.parametrize("policy", ["guide", "mild", "none"])
def test_every_policy_gives_bytes(policy: str) -> None:
    out = train_transform(DATA, AugmentationConfig(policy=policy))(IMAGE)  # type: ignore[arg-type]
    assert out.shape == (3, 64, 64)
    assert out.dtype == torch.uint8


def test_the_guide_is_the_briefs() -> None:
    steps = steps_of(AugmentationConfig())
    assert "RandomHorizontalFlip" in steps
    assert steps["RandAugment"].ops[0].magnitude == 9
    assert steps["RandAugment"].ops[0].magnitude_std == 0.5
    assert erasing_prob(AugmentationConfig()) == 0.25


def test_mild_only_crops() -> None:
    assert list(steps_of(AugmentationConfig(policy="mild"))) == [
        "CropAndResize",
        "MaybePILToTensor",
    ]


def test_a_number_replaces_the_policys_own() -> None:
    off = AugmentationConfig(
        rand_augment_magnitude=0, random_erasing_prob=0, horizontal_flip_prob=0
    )
    assert not {"RandAugment", "RandomHorizontalFlip"} & set(steps_of(off))
    assert erasing_prob(off) == 0
    assert erasing_prob(AugmentationConfig(policy="none", random_erasing_prob=0.5)) == 0


def test_colour_jitter_that_is_asked_for_is_done_beside_rand_augment() -> None:
    assert "ColorJitter" not in steps_of(AugmentationConfig())  # as timm does
    steps = steps_of(AugmentationConfig(color_jitter=0.3))
    assert steps["ColorJitter"].brightness == pytest.approx((0.7, 1.3))
    assert "RandAugment" in steps
    assert "ColorJitter" not in steps_of(AugmentationConfig(color_jitter=0))


def test_none_is_the_evaluations() -> None:
    transform = train_transform(DATA, AugmentationConfig(policy="none"))
    assert torch.equal(transform(IMAGE), eval_transform(DATA)(IMAGE))


def test_evaluation_crops_the_centre_of_what_crop_pct_leaves() -> None:
    image = np.full((80, 80, 3), 255, np.uint8)
    out = eval_transform(prepared(image_size=64))(image)
    assert (out == 255).all()


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """JPEGs of two photographs, each whole (wide), cropped high, and cropped to 70 x 90 pixels."""
    folder = tmp_path_factory.mktemp("photographs")
    paths = []
    for i, picture in enumerate(load_sample_images().images):
        for j, part in enumerate((picture, picture[:, 100:350], picture[:90, :70])):
            paths.append(folder / f"{i}{j}.jpg")
            Image.fromarray(part).save(paths[-1], quality=92)
    return paths


@pytest.mark.parametrize("pixels", [64, 96, 224])
def test_evaluation_is_timms_on_the_undecoded_file(photographs: list[Path], pixels: int) -> None:
    config = prepared(image_size=pixels)
    theirs = create_transform(
        (3, pixels, pixels), interpolation="bicubic", mean=(0, 0, 0), std=(1 / 255,) * 3
    )
    ours = eval_transform(config)
    for path in photographs:
        image = decode_image(read_content(path), config.decoded_pixels)
        assert image is not None
        difference = (ours(image) - theirs(Image.open(path).convert("RGB"))).abs()
        assert difference.mean() < 0.1  # of 255
        assert difference.max() < 6


NUM_DRAWS = 500


def whole_transform(config: DataConfig, augmentation: AugmentationConfig) -> Callable:
    """All that happens to a training image, normalising and erasing included."""
    transform, share = train_transform(config, augmentation), erasing_prob(augmentation)
    model_input = ModelInput(config.preprocessing)

    def run(image: np.ndarray) -> torch.Tensor:
        pixels = transform(image)
        patch = torch.tensor([draw_patch(share, *pixels.shape[1:])])
        return model_input(Batch(pixels[None], torch.zeros(1), patch))[0]

    return run


def features(transform: Callable, image: object) -> np.ndarray:
    """(features, draws) numbers that depend on crops, flips, colours and erased patches."""
    seed_everything(0)
    images = torch.stack([transform(image) for _ in range(NUM_DRAWS)])
    left, right = images.chunk(2, dim=3)
    saturation = images.amax(1) - images.amin(1)
    roughness = images.diff(dim=3).abs().amax((1, 2)).mean(1)
    columns = [
        images.mean((1, 2, 3)),
        images.std((1, 2, 3)),
        left.mean((1, 2, 3)) - right.mean((1, 2, 3)),
        images[:, 0].mean((1, 2)) - images[:, 2].mean((1, 2)),
        saturation.mean((1, 2)),
        roughness,
    ]
    return torch.stack(columns).numpy()


def lowest_p_value(one: np.ndarray, other: np.ndarray) -> float:
    """Lowest p-value of the Kolmogorov-Smirnov test of equal distributions, over features."""
    return min(float(ks_2samp(a, b).pvalue) for a, b in zip(one, other, strict=True))


GUIDE: dict = {"auto_augment": "rand-m9-mstd0.5", "re_prob": 0.25, "re_mode": "pixel"}
MILD: dict = {"scale": (0.7, 1.0), "ratio": (0.9, 1.1), "hflip": 0, "color_jitter": None}


@pytest.fixture(scope="module")
def lopsided(photographs: list[Path]) -> np.ndarray:
    """A square photograph, so that any crop fits; its halves differ, so that a flip shows."""
    image = decode_image(read_content(photographs[0]), 112)
    assert image is not None
    return image[:, :112]


@pytest.mark.parametrize(("policy", "options"), [("guide", GUIDE), ("mild", MILD)])
def test_training_images_are_distributed_as_timms(
    lopsided: np.ndarray, policy: Literal["guide", "mild"], options: dict
) -> None:
    config = prepared(image_size=96)
    theirs = create_transform((3, 96, 96), is_training=True, interpolation="bicubic", **options)
    ours = whole_transform(config, AugmentationConfig(policy=policy))
    expected = features(theirs, Image.fromarray(lopsided))
    assert lowest_p_value(features(ours, lopsided), expected) > 0.001


@pytest.mark.parametrize(
    "change",
    [
        {"horizontal_flip_prob": 0},
        {"random_erasing_prob": 0},
        {"rand_augment_magnitude": 0},
        {"color_jitter": 0.4},
        {"min_crop_area": 0.3},
    ],
)
def test_another_distribution_would_be_noticed(
    lopsided: np.ndarray, change: dict[str, float]
) -> None:
    config = prepared(image_size=96)
    guide = whole_transform(config, AugmentationConfig())
    changed = whole_transform(config, AugmentationConfig.model_validate(change))
    assert lowest_p_value(features(changed, lopsided), features(guide, lopsided)) < 0.001


@pytest.mark.parametrize("magnitude", [0.5, 2])
def test_random_augmentation_of_any_magnitude_gives_images(
    lopsided: np.ndarray, magnitude: float
) -> None:
    augmentation = AugmentationConfig(rand_augment_magnitude=magnitude, random_erasing_prob=0)
    transform = train_transform(prepared(image_size=32), augmentation)
    seed_everything(0)
    assert all(transform(lopsided).shape == (3, 32, 32) for _ in range(200))


def test_the_crop_is_timms(photographs: list[Path]) -> None:
    image = decode_image(read_content(photographs[0]), 256)
    assert image is not None
    crop = CropAndResize(64, interpolation="bicubic")
    for seed in range(5):
        seed_everything(seed)
        ours = crop(image).permute(1, 2, 0).numpy().astype(int)
        seed_everything(seed)
        theirs = np.asarray(super(CropAndResize, crop).__call__(Image.fromarray(image)))
        assert np.abs(ours - theirs).max() <= 2


def test_what_needs_no_pil_image_gives_the_same_without(photographs: list[Path]) -> None:
    image = decode_image(read_content(photographs[0]), 96)
    assert image is not None
    off = {"color_jitter": 0, "rand_augment_magnitude": 0}
    transform: Any = train_transform(prepared(image_size=64), AugmentationConfig(**off))
    crop, *steps = transform.transforms
    for seed in range(8):  # some are mirrored
        seed_everything(seed)
        ours = transform(image)
        seed_everything(seed)
        through_pil = Image.fromarray(crop(image).permute(1, 2, 0).numpy())
        for step in steps:
            through_pil = step(through_pil)
        assert torch.equal(ours, through_pil)


def mixer(**augmentation: float) -> BatchMixer:
    values = {"augmentation": augmentation, "label_smoothing": 0.1}
    return BatchMixer(TrainConfig.model_validate(values), num_classes=4)


@pytest.mark.parametrize("size", [1, 2, 5, 6])
@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_a_batch_is_mixed_with_its_reverse_and_so_are_its_targets(kind: str, size: int) -> None:
    images = torch.arange(float(size)).view(size, 1, 1, 1).repeat(1, 3, 8, 8)
    labels = torch.arange(size) % 4
    seed_everything(3)
    mixed, targets = mixer(**{kind: 1.0})(images.clone(), labels)
    assert torch.allclose(targets.sum(1), torch.ones(size))
    for i in range(size):
        partner = size - 1 - i
        if i == partner:
            assert torch.equal(mixed[i], images[i])
            continue
        share = ((mixed[i] - i) / (partner - i)).mean()  # the partner's weight
        smoothed = 0.9 * torch.eye(4)[labels] + 0.1 / 4
        expected = (1 - share) * smoothed[i] + share * smoothed[partner]
        assert torch.allclose(targets[i], expected, atol=1e-5)


def test_mixing_is_as_frequent_as_asked() -> None:
    seed_everything(0)
    mix = mixer(mixup=1.0, mixup_prob=0.25)
    images = torch.arange(4.0).view(4, 1, 1, 1).repeat(1, 3, 2, 2)
    changed = sum(
        not torch.equal(mix(images.clone(), torch.zeros(4, dtype=torch.long))[0], images)
        for _ in range(400)
    )
    assert changed / 400 == pytest.approx(0.25, abs=0.06)
