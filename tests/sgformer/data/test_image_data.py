import shutil
from pathlib import Path

import numpy as np
import pytest

from sgformer.data.image_data import load_image_data, stratified_part
from sgformer.data_config import DataConfig
from sgformer.errors import ConfigError, DataError


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def config_for(folder: Path, cache_dir: Path, **values: object) -> DataConfig:
    data = {"data_dir": folder, "image_size": 32, "crop_pct": 1.0, "cache_dir": cache_dir}
    return DataConfig.model_validate(data | values)


def test_a_search_keeps_to_the_images_that_it_began_with(
    own_image_folder: Path, tmp_path: Path
) -> None:
    config = config_for(own_image_folder, tmp_path / "cache")
    data = load_image_data(config)
    (own_image_folder / "train" / "0" / "0.png").unlink()
    same = load_image_data(config, expected=data.images.id)
    assert np.array_equal(same.samples("train"), data.samples("train"))
    assert np.array_equal(same.images[0], data.images[0])
    assert same.folder == data.folder
    # A node that has not decoded the images yet detects the change.
    elsewhere = config_for(own_image_folder, tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"the images in .* have changed since the search began"):
        load_image_data(elsewhere, expected=data.images.id)


def test_a_copy_on_another_disk_has_the_same_content(image_folder: Path, tmp_path: Path) -> None:
    data = load_image_data(config_for(image_folder, tmp_path / "cache"))
    shutil.copytree(image_folder, tmp_path / "copy", copy_function=shutil.copyfile)
    config = config_for(tmp_path / "copy", tmp_path / "its cache")
    copy = load_image_data(config, expected=data.images.id)
    assert copy.images.id.files != data.images.id.files
    assert np.array_equal(copy.samples("val"), data.samples("val"))


def test_fewer_than_one_in_a_hundred_unreadable_images_are_passed_over(
    own_image_folder: Path, tmp_path: Path
) -> None:
    bad = own_image_folder / "train" / "3" / "0.png"
    cut(bad)
    data = load_image_data(config_for(own_image_folder, tmp_path))
    assert data.unreadable == (str(bad),)
    assert len(data.samples("train")) == 59


def test_links_to_nowhere_are_unreadable_and_folders_are_no_images(
    own_image_folder: Path, tmp_path: Path
) -> None:
    link = own_image_folder / "train" / "3" / "link.png"
    link.symlink_to(tmp_path / "nowhere.png")
    (own_image_folder / "train" / "3" / "folder.png").mkdir()
    data = load_image_data(config_for(own_image_folder, tmp_path))
    assert data.unreadable == (str(link),)
    assert len(data.samples("train")) == 60


def test_more_unreadable_images_stop_it_naming_the_first_ten(
    own_image_folder: Path, tmp_path: Path
) -> None:
    for digit in range(12):
        cut(own_image_folder / "train" / str(digit % 10) / f"{digit // 10}.png")
    with pytest.raises(DataError, match=r"12 of 110 images in .* cannot be read") as caught:
        load_image_data(config_for(own_image_folder, tmp_path))
    assert str(caught.value).count(".png") == 10


def test_a_part_of_a_split_has_the_same_share_of_each_class() -> None:
    labels = np.repeat([0, 1, 2], [100, 60, 2])
    samples = np.stack([np.arange(162) + 7, labels], axis=1)
    for num_images, counts in ((81, [50, 30, 1]), (17, [10, 6, 1]), (3, [1, 1, 1])):
        part = stratified_part(samples, num_images, seed=4)
        assert np.abs(np.bincount(part[:, 1]) - counts).max() <= 1
        assert len(part) == num_images
        assert sorted(map(tuple, part)) == [tuple(row) for row in part]  # in the split's order
        assert {tuple(row) for row in part} <= {tuple(row) for row in samples}
        assert np.array_equal(part, stratified_part(samples, num_images, seed=4))
    others = stratified_part(samples, 81, seed=5)
    assert not np.array_equal(others, stratified_part(samples, 81, seed=4))
    for everything in (None, 162, 500):
        assert stratified_part(samples, everything, seed=4) is samples


def test_a_part_without_room_for_every_class_is_refused() -> None:
    samples = np.stack([np.arange(30), np.arange(30) % 10], axis=1)
    with pytest.raises(ConfigError, match=r"train\.eval_images: must be at least 10, .* got 9"):
        stratified_part(samples, 9, seed=0)
