"""Tests of a glance at a data set: lists and headers."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data_sets import write_csv, write_parquet, write_shards
from PIL import Image

from sgformer.data.image_folder import read_image_folder
from sgformer.data_check import glance as module
from sgformer.data_check.check import ClassSizes, SidesFound, SplitFound
from sgformer.data_check.glance import Glance, glance_at
from sgformer.data_config import DataConfig
from sgformer.errors import DataError


def glance(folder: Path) -> Glance:
    return glance_at(read_image_folder(DataConfig(data_dir=folder)))


def as_shards(folder: Path) -> Path:
    return write_shards(folder, folder.parent / "shards")


def as_manifest(folder: Path) -> Path:
    return write_csv(folder, folder.parent)


def as_parquet(folder: Path) -> Path:
    return write_parquet(folder, folder.parent / "parquet")


@pytest.mark.parametrize("kind", [lambda folder: folder, as_shards, as_manifest, as_parquet])
def test_a_set_of_any_kind_is_told_by_lists_and_headers(
    own_image_folder: Path, kind: Callable[[Path], Path]
) -> None:
    shutil.rmtree(own_image_folder / "val")
    shutil.rmtree(own_image_folder / "test")
    wide = Image.fromarray(np.zeros((8, 40, 3), np.uint8))
    wide.save(own_image_folder / "train/1/wide.png")
    found = glance(kind(own_image_folder))
    assert found.splits == {"train": SplitFound(51, 10), "val": SplitFound(10, 10)}
    assert (found.val_is_of_train, found.num_to_split) == (True, 61)
    assert found.shorter_side == SidesFound(8, 8.0, 8)
    assert found.longer_side.largest in (8, 40)  # the wide one may be in val
    assert found.class_sizes == ClassSizes("train", 6, "1", 5.0, 5, "0")


def test_val_of_its_own_is_not_counted_as_train(image_folder: Path) -> None:
    found = glance(image_folder)
    assert (found.val_is_of_train, found.num_to_split) == (False, 60)
    assert found.splits["test"] == SplitFound(20, 10)


def test_no_image_is_decoded(own_image_folder: Path) -> None:
    for path in (own_image_folder / "train").glob("*/*"):
        path.write_bytes(path.read_bytes()[:60])  # a PNG's header has its size
    found = glance(own_image_folder)
    assert (found.num_looked_at, found.num_unknown) == (60, 0)


def test_a_header_at_the_end_of_a_file_is_found(
    own_image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = own_image_folder / "train/1/last.tiff"
    pixels = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, compression="tiff_lzw")
    monkeypatch.setattr(module, "HEAD_BYTES", 16)
    found = glance(own_image_folder)
    assert found.num_unknown == 0
    assert found.shorter_side.largest == 300


def test_few_headers_of_many_images_are_read(
    image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_HEADERS", 7)
    assert 4 <= glance(image_folder).num_looked_at <= 7


def test_unknown_sizes_are_counted_and_a_set_of_nothing_else_is_refused(
    own_image_folder: Path,
) -> None:
    files = sorted((own_image_folder / "train").glob("*/*"))
    for path in files[1:]:
        path.write_bytes(b"no image")
    assert glance(own_image_folder).num_unknown == 59
    files[0].write_bytes(b"")
    told = r"none of 60 train images of .*images that were looked at can be read, such as 'train/0"
    with pytest.raises(DataError, match=told):
        glance(own_image_folder)
