import numpy as np
import pytest
import torch
from configs import changed

from sgformer.config import TrainConfig
from sgformer.data.augmentation import BatchMixer
from sgformer.data.fused_input import FusedInput, each, images_of, split, variants

pytestmark = pytest.mark.fuse


def given(num: int) -> FusedInput:
    """Images of one colour each, and features that tell the colour."""
    colours = torch.arange(1.0, num + 1)
    return FusedInput(colours.view(-1, 1, 1, 1).expand(-1, 3, 8, 8).clone(), colours[:, None])


@pytest.mark.parametrize("num", [8, 7])
def test_features_are_mixed_with_the_shares_of_the_images(
    train_config: TrainConfig, num: int
) -> None:
    config = changed(train_config, augmentation={"mixup": 1.0}, label_smoothing=0.0)
    np.random.seed(0)
    mixed, targets = BatchMixer(config, num)(given(num), torch.arange(num))
    assert isinstance(mixed, FusedInput)
    assert torch.allclose(mixed.features[:, 0], mixed.images[:, 0, 0, 0])
    assert torch.allclose(mixed.features[:, 0], targets @ torch.arange(1.0, num + 1))
    assert not torch.equal(mixed.features, given(num).features)


def test_features_are_mixed_by_the_area_that_cutmix_leaves(train_config: TrainConfig) -> None:
    config = changed(train_config, augmentation={"cutmix": 1.0}, label_smoothing=0.0)
    np.random.seed(3)
    mixed, targets = BatchMixer(config, 8)(given(8), torch.arange(8))
    assert torch.allclose(mixed.features[:, 0], targets @ torch.arange(1.0, 9))
    assert torch.allclose(mixed.features[:, 0], mixed.images.mean((1, 2, 3)))


def test_a_mixed_pair_lacks_features_if_one_of_the_two_does(train_config: TrainConfig) -> None:
    config = changed(train_config, augmentation={"mixup": 1.0})
    lacking = given(6)
    lacking.features[1] = torch.nan
    np.random.seed(0)
    mixed, _ = BatchMixer(config, 6)(lacking, torch.arange(6))
    assert mixed.features.isnan()[:, 0].tolist() == [False, True, False, False, True, False]


def test_a_batch_that_is_not_mixed_keeps_its_features(train_config: TrainConfig) -> None:
    config = changed(train_config, augmentation={"mixup": 1.0, "mixup_prob": 0.0})
    lacking = given(6)
    lacking.features[1] = torch.nan
    mixed, _ = BatchMixer(config, 6)(lacking, torch.arange(6))
    assert mixed.features.isnan()[:, 0].tolist() == [False, True, False, False, False, False]


def test_parts_and_changes_keep_images_and_features_together() -> None:
    parts = split(given(5), [3, 2])
    assert [len(images_of(part)) for part in parts] == [3, 2]
    assert torch.equal(parts[1].features, given(5).features[3:])
    plain = torch.zeros(5, 3, 8, 8)
    assert [len(part) for part in split(plain, [3, 2])] == [3, 2]
    assert isinstance(each(given(2), torch.Tensor.numpy).features, np.ndarray)
    both, image, features = variants(given(2))
    assert not images_of(both).isnan().any()
    assert image.features.isnan().all()
    assert features.images.isnan().all()
    assert variants(plain) == (plain,)
