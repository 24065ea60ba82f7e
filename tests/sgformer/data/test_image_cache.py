import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from sgformer.config import DataConfig
from sgformer.data.image_data import decode_folder, load_image_data
from sgformer.data.image_folder import read_split
from sgformer.errors import DataError
from sgformer.images.decoding import decode_image


def config_for(folder: Path, cache_dir: Path, **values: object) -> DataConfig:
    data = {"data_dir": folder, "image_size": 32, "crop_pct": 1.0, "cache_dir": cache_dir}
    return DataConfig.model_validate(data | values)


def test_mapped_images_are_those_decoded(image_folder: Path, tmp_path: Path) -> None:
    data = load_image_data(config_for(image_folder, tmp_path))
    for i in (0, 57, 109):
        assert np.array_equal(data.images[i], decode_image(data.images.path(i), 32))
    sizes = {split: len(samples) for split, samples in data.splits.items()}
    assert sizes == {"train": 60, "val": 30, "test": 20}
    position, label = data.samples("test")[5]
    assert data.images.path(position).parent.name == data.classes[label]


def test_images_are_decoded_once_until_they_change(own_image_folder: Path, tmp_path: Path) -> None:
    config = config_for(own_image_folder, tmp_path)
    seen: list[int] = []
    load_image_data(config, lambda done, _total: seen.append(done))
    assert seen == list(range(1, 111))
    load_image_data(config, lambda done, _total: seen.append(done))
    assert len(seen) == 110
    path = own_image_folder / "train" / "0" / "0.png"
    cv2.imwrite(str(path), np.full((9, 9), 7, np.uint8))
    for old in (*tmp_path.iterdir(), tmp_path / ("0" * 32)):  # makes all caches old
        old.mkdir() if not old.exists() else None
        os.utime(old, (0, 0))
    data = load_image_data(config, lambda done, _total: seen.append(done))
    assert len(seen) == 220
    assert (data.images[data.images.names.index("train/0/0.png")] == 7).all()
    assert len(list(tmp_path.glob("*/pixels.bin"))) == 1  # outdated caches are removed
    assert not (tmp_path / ("0" * 32)).exists()
    assert own_image_folder.is_dir()


def test_another_split_alone_does_not_push_the_whole_folder_out(
    image_folder: Path, tmp_path: Path
) -> None:
    config = config_for(image_folder, tmp_path)
    data = load_image_data(config)
    decode_folder(read_split(config, "test", data.classes), config)
    assert len(list(tmp_path.glob("*/pixels.bin"))) == 2


def test_what_was_opened_today_is_kept_for_those_who_use_it(
    own_image_folder: Path, tmp_path: Path
) -> None:
    config = config_for(own_image_folder, tmp_path / "cache")
    data = load_image_data(config)
    (own_image_folder / "train" / "0" / "0.png").unlink()
    load_image_data(config)  # as another search does
    assert len(load_image_data(config, expected=data.images.id).samples("train")) == 60


def test_two_processes_that_need_the_same_images_decode_them_once(
    image_folder: Path, tmp_path: Path
) -> None:
    config = config_for(image_folder, tmp_path)
    script = (
        "import sys\n"
        "from sgformer.config import DataConfig\n"
        "from sgformer.data.image_data import load_image_data\n"
        "seen = []\n"
        "config = DataConfig.model_validate_json(sys.argv[1])\n"
        "load_image_data(config, lambda done, total: seen.append(done))\n"
        "print(len(seen))\n"
    )
    command = [sys.executable, "-c", script, config.model_dump_json()]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert sorted(p.communicate()[0].strip() for p in processes) == ["0", "110"]


@pytest.mark.parametrize("limit", [0, 20_000])
def test_beyond_the_cache_limit_images_are_decoded_when_needed(
    image_folder: Path, tmp_path: Path, limit: int
) -> None:
    data = load_image_data(config_for(image_folder, tmp_path, cache_bytes=limit))
    assert sum(path.stat().st_size for path in tmp_path.rglob("pixels.bin")) <= limit
    for i in (0, 109):
        assert np.array_equal(data.images[i], decode_image(data.images.path(i), 32))


def test_what_a_killed_process_left_half_built_is_built_anew(
    image_folder: Path, tmp_path: Path
) -> None:
    config = config_for(image_folder, tmp_path)
    load_image_data(config)
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    folder.rename(folder.with_suffix(".building"))
    data = load_image_data(config)
    assert np.array_equal(data.images[3], decode_image(data.images.path(3), 32))
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [folder]


def test_an_unusable_cache_folder_is_named(image_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot write the cache .*train\.data\.cache_dir"):
        load_image_data(config_for(image_folder, tmp_path / "file"))
