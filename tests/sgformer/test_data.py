import pytest
import torch

from sgformer.augmentation import eval_transform
from sgformer.config import TrainConfig
from sgformer.data import ImageDataset, create_loader
from sgformer.decoded_images import load_image_data
from sgformer.errors import DataError


@pytest.fixture
def dataset(train_config: TrainConfig) -> ImageDataset:
    data = load_image_data(train_config.data)
    return ImageDataset(data, "train", eval_transform(train_config.data))


def test_samples_are_normalised_tensors_with_labels(dataset: ImageDataset) -> None:
    image, label = dataset[59]
    assert (image.shape, image.dtype, label) == ((3, 32, 32), torch.float32, 9)
    assert len(dataset) == 60


def test_a_split_that_is_not_there_is_named(train_config: TrainConfig) -> None:
    with pytest.raises(DataError, match="no split 'extra'"):
        ImageDataset(
            load_image_data(train_config.data), "extra", eval_transform(train_config.data)
        )


def test_without_a_seed_every_image_comes_in_order(dataset: ImageDataset) -> None:
    labels = torch.cat([labels for _, labels in create_loader(dataset, 16)])
    assert labels.tolist() == sorted(labels.tolist())
    assert len(labels) == 60


def test_with_a_seed_the_order_is_shuffled_and_repeats(dataset: ImageDataset) -> None:
    def order(seed: int) -> list[int]:
        loader = create_loader(dataset, 16, shuffle_seed=seed)
        return torch.cat([labels for _, labels in loader]).tolist()

    assert order(1) == order(1) != order(2)
    assert len(order(1)) == 48  # the last partial batch is dropped


def test_a_split_smaller_than_a_batch_is_kept(dataset: ImageDataset) -> None:
    assert [len(labels) for _, labels in create_loader(dataset, 64, shuffle_seed=1)] == [60]
