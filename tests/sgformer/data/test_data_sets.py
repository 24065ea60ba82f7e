"""Every kind of data set gives the images, classes and splits of the folder it was made of."""

import io
import itertools
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data_sets import (
    ROWS_OF_A_GROUP,
    write_csv,
    write_parquet,
    write_parquet_manifest,
    write_shards,
)

from sgformer.data.image_data import ImageData, load_image_data
from sgformer.data.image_folder import read_split_of_training
from sgformer.data_config import DataConfig
from sgformer.errors import DataError

WRITERS: dict[str, Callable[[Path, Path], Path]] = {
    "shards with class files": lambda folder, root: write_shards(folder, root / "set"),
    "shards with folders": lambda folder, root: write_shards(
        folder, root / "set", labels="folder"
    ),
    "CSV manifest": write_csv,
    "parquet manifest": write_parquet_manifest,
    "parquet files": lambda folder, root: write_parquet(folder, root / "set"),
    "parquet files without paths": lambda folder, root: write_parquet(
        folder, root / "set", has_paths=False
    ),
}


@pytest.fixture(params=list(WRITERS))
def data_set(request: pytest.FixtureRequest, own_image_folder: Path, tmp_path: Path) -> Path:
    """A data set of one kind, beside the folder of the same images."""
    return WRITERS[request.param](own_image_folder, tmp_path)


def config_for(data_set: Path, cache: Path, **values: object) -> DataConfig:
    data = {"data_dir": data_set, "image_size": 32, "crop_pct": 1.0, "cache_dir": cache}
    return DataConfig.model_validate(data | values)


def content_of(data: ImageData, split: str) -> list[tuple[int, bytes]]:
    """The labels and pixels of a split, sorted."""
    return sorted((label, data.images[i].tobytes()) for i, label in data.samples(split).tolist())


def assert_same(data: ImageData, expected: ImageData) -> None:
    assert data.classes == expected.classes
    assert list(data.splits) == list(expected.splits)
    for split in data.splits:
        assert content_of(data, split) == content_of(expected, split)


@pytest.mark.parametrize("cache_bytes", [None, 0], ids=["all are kept", "none is kept"])
def test_all_kinds_hold_the_same_images(
    data_set: Path, own_image_folder: Path, tmp_path: Path, cache_bytes: int | None
) -> None:
    expected = load_image_data(config_for(own_image_folder, tmp_path / "cache of folder"))
    cache = tmp_path / "cache"
    config = config_for(data_set, cache, cache_bytes=cache_bytes)
    data = load_image_data(config)
    assert (data.images.num_not_stored > 0) == (cache_bytes == 0)
    assert_same(data, expected)
    again = load_image_data(config, expected=data.images.id)  # as a trial opens it
    assert_same(again, expected)
    assert len({again.images.where(i) for i in range(110)}) == 110


@pytest.mark.parametrize("kind", list(WRITERS))
def test_val_is_split_off_train_in_each_kind(
    own_image_folder: Path, tmp_path: Path, kind: str
) -> None:
    shutil.rmtree(own_image_folder / "val")
    data_set = WRITERS[kind](own_image_folder, tmp_path)
    data = load_image_data(config_for(data_set, tmp_path / "cache"))
    assert {split: len(own) for split, own in data.splits.items()} == {
        "train": 50, "val": 10, "test": 20,
    }  # fmt: skip
    assert data.folder.val_is_of_train
    assert data.trained_images.val_of_train


def test_a_split_of_a_training_is_found_again(data_set: Path, tmp_path: Path) -> None:
    config = config_for(data_set, tmp_path / "cache")
    data = load_image_data(config)
    for split in ("val", "test"):
        folder, notes = read_split_of_training(config, split, data.classes, data.trained_images)
        assert not notes
        assert folder.split(split).names == data.folder.split(split).names


def test_a_set_that_has_changed_is_refused(data_set: Path, tmp_path: Path) -> None:
    data = load_image_data(config_for(data_set, tmp_path / "cache"))
    elsewhere = config_for(data_set, tmp_path / "elsewhere")
    if data_set.is_file():
        data_set.write_bytes(data_set.read_bytes().replace(b"test", b"val "))
    else:
        next(path for path in sorted(data_set.rglob("*")) if path.is_file()).unlink()
    with pytest.raises(DataError):
        load_image_data(elsewhere, expected=data.images.id)


def reverse_members(shard: Path) -> None:
    """Writes a tar's members again, the last one first."""
    with tarfile.open(shard) as tar:
        members = [(member, tar.extractfile(member)) for member in tar.getmembers()]
        contents = [(member, file.read()) for member, file in members if file is not None]
    with tarfile.open(shard, "w") as tar:
        for member, content in reversed(contents):
            tar.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("cache_bytes", [None, 0], ids=["all are kept", "none is kept"])
def test_a_shard_whose_images_have_moved_is_not_read_at_their_old_places(
    own_image_folder: Path, tmp_path: Path, cache_bytes: int | None
) -> None:
    data_set = write_shards(own_image_folder, tmp_path / "set", labels="folder")
    config = config_for(data_set, tmp_path / "cache", cache_bytes=cache_bytes)
    data = load_image_data(config)
    expected = {split: content_of(data, split) for split in data.splits}
    for shard in data_set.iterdir():
        reverse_members(shard)
    if cache_bytes == 0:
        with pytest.raises(DataError, match="have changed since the search began"):
            load_image_data(config, expected=data.images.id)
    else:  # the cache has all images, and none is read from the shards
        again = load_image_data(config, expected=data.images.id)
        assert {split: content_of(again, split) for split in again.splits} == expected
    anew = load_image_data(config)
    assert anew.images.id.content != data.images.id.content
    assert {split: content_of(anew, split) for split in anew.splits} == expected


def test_images_that_are_gone_are_told_by_their_place(data_set: Path, tmp_path: Path) -> None:
    config = config_for(data_set, tmp_path / "cache", cache_bytes=0)
    images = load_image_data(config, expected=load_image_data(config).images.id).images
    where = images.where(0)
    if data_set.is_file():
        Path(where).unlink()
    else:
        path = Path(where.split(": ")[0])
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="could be read before and cannot now") as caught:
        images[0]
    assert where in str(caught.value)


def test_the_images_of_a_row_group_are_read_one_after_another(
    own_image_folder: Path, tmp_path: Path
) -> None:
    data_set = write_parquet(own_image_folder, tmp_path / "set")
    folder = load_image_data(config_for(data_set, tmp_path / "cache")).folder
    mixed = np.random.default_rng(0).permutation(folder.names).tolist()
    order = folder.source.in_reading_order(mixed)
    assert sorted(order) == sorted(mixed)
    places = [folder.source.where(name).split(": row ") for name in order]
    groups = [(path, int(row) // ROWS_OF_A_GROUP) for path, row in places]
    changes = sum(a != b for a, b in itertools.pairwise(groups))
    assert changes == len(set(groups)) - 1
