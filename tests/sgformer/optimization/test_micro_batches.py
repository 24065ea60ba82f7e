import pytest

from sgformer.catalog import MODEL_NAMES
from sgformer.config import TrainConfig
from sgformer.data.image_data import load_image_data
from sgformer.errors import ConfigError
from sgformer.optimization.micro_batches import (
    check_batches,
    fewest_at_a_time,
    fewest_for_statistics,
    micro_batch_sizes,
)
from sgformer.validation import validate


@pytest.mark.parametrize(
    ("num_images", "largest", "sizes", "sizes_for_batch_norm"),
    [
        (20, 20, [20], [20]),
        (20, 7, [7, 7, 6], [7, 7, 6]),
        (20, 8, [7, 7, 6], [7, 7, 6]),
        (9, 4, [3, 3, 3], [3, 3, 3]),
        (5, 2, [2, 2, 1], [3, 2]),
        (3, 1, [1, 1, 1], [3]),
        (4, 1, [1, 1, 1, 1], [2, 2]),
        (1, 1, [1], [1]),
    ],
)
def test_micro_batches_are_balanced_and_for_batch_norm_of_two_or_more(
    num_images: int, largest: int, sizes: list[int], sizes_for_batch_norm: list[int]
) -> None:
    assert micro_batch_sizes([num_images], 0, largest, for_batch_norm=False) == sizes
    assert micro_batch_sizes([num_images], 0, largest, for_batch_norm=True) == (
        sizes_for_batch_norm
    )


def test_processes_with_batch_norm_have_as_many_micro_batches_as_one_another() -> None:
    for shares in ([10, 11], [4, 6, 5], [2, 3], [2, 2]):
        for largest in range(1, 8):
            parts = [
                micro_batch_sizes(shares, rank, largest, for_batch_norm=True)
                for rank in range(len(shares))
            ]
            assert len({len(sizes) for sizes in parts}) == 1
            assert [sum(sizes) for sizes in parts] == shares
            assert min(map(min, parts)) >= 2


def test_the_smallest_micro_batches_are_told() -> None:
    assert fewest_at_a_time([20], for_batch_norm=False) == 1
    assert [fewest_at_a_time(s, for_batch_norm=True) for s in ([20], [7], [2, 4])] == [2, 3, 4]
    assert fewest_for_statistics([7], 1, synchronised=False) == 2  # 3 + 2 + 2
    assert fewest_for_statistics([10, 11], 4, synchronised=False) == 3  # 4 + 3 + 3, 4 + 4 + 3
    assert fewest_for_statistics([10, 11], 4, synchronised=True) == 6


def test_batches_of_one_image_are_refused_for_batch_norm_only(train_config: TrainConfig) -> None:
    data = load_image_data(train_config.data)

    def with_batches_of_one(name: str) -> TrainConfig:
        values = train_config.model_dump()
        values["model"]["name"], values["optimizer"]["batch_size"] = name, 1
        return validate(TrainConfig, values, "here")

    with pytest.raises(ConfigError, match=r"test_resnet has BatchNorm, .*train\.optimizer\.batc"):
        check_batches(with_batches_of_one("test_resnet"), data)
    check_batches(with_batches_of_one("test_vit"), data)
    check_batches(with_batches_of_one(MODEL_NAMES[0]), data)
