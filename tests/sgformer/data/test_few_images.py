"""Tests of the few images that stand for a data set while a training's cost is measured."""

from pathlib import Path

import numpy as np
import pytest
from data_sets import write_shards

from sgformer.config import TrainConfig
from sgformer.data.few_images import few_images
from sgformer.data.image_folder import read_image_folder
from sgformer.errors import DataError


@pytest.mark.parametrize("is_sharded", [False, True])
def test_a_few_images_stand_for_all(
    train_config: TrainConfig, tmp_path: Path, is_sharded: bool
) -> None:
    config = train_config.data
    assert config.data_dir is not None
    if is_sharded:
        root = write_shards(config.data_dir, tmp_path / "shards")
        config = config.model_copy(update={"data_dir": root})
    folder = read_image_folder(config)
    data = few_images(folder, 8).decoded(config, tmp_path / "cache", most_val=13)
    assert len(data.images.names) <= 8
    assert data.classes == folder.classes
    assert data.samples("train")[:, 1].tolist() == list(folder.splits["train"].labels)
    assert set(data.samples("train")[:, 0].tolist()) == set(range(len(data.images.names)))
    assert (len(data.samples("train")), len(data.samples("val"))) == (60, 13)
    assert all(data.images[i].shape[2] == 3 for i in np.unique(data.samples("val")[:, 0]))
    assert list((tmp_path / "cache").iterdir())


def test_they_are_stored_as_those_of_the_whole_set_would_be(
    train_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = read_image_folder(train_config.data)
    monkeypatch.setattr("sgformer.data.cache_building.RAW_BYTES", 32 * 32 * 3 * 59)
    few = few_images(folder, 8)
    few.decoded(train_config.data, tmp_path / "whole", most_val=4)
    raw = train_config.data.model_copy(update={"cache_format": "raw"})
    few.decoded(raw, tmp_path / "raw", most_val=4)
    whole, as_raw = (
        sum(file.stat().st_size for file in (tmp_path / name).rglob("pixels.bin"))
        for name in ("whole", "raw")
    )
    assert whole < as_raw


def test_images_that_cannot_be_read_are_an_error(
    train_config: TrainConfig, own_image_folder: Path, tmp_path: Path
) -> None:
    config = train_config.data.model_copy(update={"data_dir": own_image_folder})
    for path in (own_image_folder / "train").glob("*/*"):
        path.write_text("no image")
    few = few_images(read_image_folder(config), 8)
    with pytest.raises(DataError, match=r"none of \d train images of .* can be read"):
        few.decoded(config, tmp_path / "cache", most_val=4)
