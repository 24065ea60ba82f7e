import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from sgformer.data.image_data import ImageData, decode_folder, load_image_data
from sgformer.data.image_folder import read_split
from sgformer.data_config import DataConfig
from sgformer.errors import DataError
from sgformer.images.decoding import decode_image
from sgformer.sources.source import read_content

RAW = 32 * 32 * 3  # bytes of an image of the digits


def config_for(folder: Path, cache_dir: Path, **values: object) -> DataConfig:
    data = {"data_dir": folder, "image_size": 32, "crop_pct": 1.0, "cache_dir": cache_dir}
    return DataConfig.model_validate(data | values)


def stored(place: Path) -> int:
    """Bytes of the images that caches hold."""
    return sum(path.stat().st_size for path in place.rglob("pixels.bin"))


def readable_without_files(data: ImageData, split: str) -> int:
    """How many of a split's images are read from the cache alone."""
    number = 0
    for position, _ in data.samples(split):
        try:
            data.images[int(position)]
        except DataError:
            continue
        number += 1
    return number


def test_images_are_decoded_once_until_they_change(own_image_folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "cache"
    config = config_for(own_image_folder, place)
    seen: list[int] = []
    load_image_data(config, lambda done, _total: seen.append(done))
    assert seen == list(range(1, 111))
    load_image_data(config, lambda done, _total: seen.append(done))
    assert len(seen) == 110
    path = own_image_folder / "train" / "0" / "0.png"
    cv2.imwrite(str(path), np.full((9, 9), 7, np.uint8))
    of_version_1 = place / ("0" * 32)
    of_version_1.mkdir()
    for old in place.iterdir():
        os.utime(old, (0, 0))
    data = load_image_data(config, lambda done, _total: seen.append(done))
    assert len(seen) == 220
    assert (data.images[data.images.names.index("train/0/0.png")] == 7).all()
    assert len(list(place.glob("*/pixels.bin"))) == 1  # outdated caches are removed
    assert not of_version_1.exists()
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
        "from sgformer.data_config import DataConfig\n"
        "from sgformer.data.image_data import load_image_data\n"
        "seen = []\n"
        "config = DataConfig.model_validate_json(sys.argv[1])\n"
        "load_image_data(config, lambda done, total: seen.append(done))\n"
        "print(len(seen))\n"
    )
    command = [sys.executable, "-c", script, config.model_dump_json()]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert sorted(p.communicate()[0].strip() for p in processes) == ["0", "110"]


@pytest.mark.parametrize("limit", [0, 80_000])
def test_beyond_the_cache_limit_images_are_decoded_when_needed_and_it_is_said(
    image_folder: Path, tmp_path: Path, limit: int
) -> None:
    data = load_image_data(config_for(image_folder, tmp_path, cache_bytes=limit))
    assert stored(tmp_path) <= limit
    for i in (0, 109):
        assert np.array_equal(data.images[i], decode_image(read_content(data.images.where(i)), 32))
    kept = stored(tmp_path) // RAW
    assert (kept > 0) == (limit > 0)
    note = data.cache_note or ""
    assert note.startswith(f"{110 - kept} of 110 decoded images are not kept in {tmp_path}")
    assert "all caches there may take" in note
    assert "train.data.cache_bytes" in note


def test_val_is_stored_before_train_and_train_before_test(
    own_image_folder: Path, tmp_path: Path
) -> None:
    config = config_for(own_image_folder, tmp_path / "cache", cache_bytes=60 * RAW + 25_000)
    data = load_image_data(config)
    for file in own_image_folder.rglob("*.png"):
        file.unlink()
    assert readable_without_files(data, "val") == 30
    assert 20 < readable_without_files(data, "train") < 40
    assert readable_without_files(data, "test") == 0


def test_the_part_of_train_that_is_stored_is_drawn_from_all_classes(
    own_image_folder: Path, tmp_path: Path
) -> None:
    config = config_for(own_image_folder, tmp_path / "cache", cache_bytes=60 * RAW + 25_000)
    data = load_image_data(config)
    for file in (own_image_folder / "train").rglob("*.png"):
        file.unlink()
    kept = set()
    for position, label in data.samples("train"):
        try:
            data.images[int(position)]
        except DataError:
            continue
        kept.add(label)
    assert len(kept) > 7


def test_with_more_room_a_cache_that_lacks_images_is_built_anew(
    image_folder: Path, tmp_path: Path
) -> None:
    first = load_image_data(config_for(image_folder, tmp_path, cache_bytes=80_000))
    assert first.images.num_not_stored
    del first
    again = load_image_data(config_for(image_folder, tmp_path, cache_bytes=81_000))
    assert again.images.num_not_stored  # hardly any more room is not worth it
    del again
    assert not load_image_data(config_for(image_folder, tmp_path)).images.num_not_stored


def test_all_caches_together_keep_to_the_limit_and_the_least_recently_used_goes(
    image_folder: Path, tmp_path: Path
) -> None:
    limit = 2 * 110 * RAW + 130_000

    def load(pixels: int) -> ImageData:
        config = config_for(image_folder, tmp_path, decode_size=pixels, cache_bytes=limit)
        return load_image_data(config)

    for age, pixels in ((300, 33), (200, 34)):
        os.utime(load(pixels).images.cache, (age, age))
    load(33)  # is used last
    cache = load(35)  # needs the room of one of them
    assert cache.images.num_not_stored == 0
    sizes = sorted(int(path.name.split("-")[1]) for path in tmp_path.glob("*-v3"))
    assert sizes == [33, 35]


def test_a_cache_in_use_is_never_removed_for_another(image_folder: Path, tmp_path: Path) -> None:
    limit = 110 * RAW + 100_000
    used = load_image_data(config_for(image_folder, tmp_path, cache_bytes=limit))
    os.utime(used.images.cache, (0, 0))
    other = load_image_data(config_for(image_folder, tmp_path, cache_bytes=limit, decode_size=40))
    assert used.images.cache.is_dir()
    assert other.images.num_not_stored > 0
    sizes = (file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    assert sum(sizes) <= limit


def test_what_a_killed_process_left_half_built_is_built_anew(
    image_folder: Path, tmp_path: Path
) -> None:
    config = config_for(image_folder, tmp_path)
    load_image_data(config)
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    folder.rename(folder.with_suffix(".building"))
    data = load_image_data(config)
    assert np.array_equal(data.images[3], decode_image(read_content(data.images.where(3)), 32))
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [folder]


def test_an_unusable_cache_folder_is_named(image_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot write the cache .*train\.data\.cache_dir"):
        load_image_data(config_for(image_folder, tmp_path / "file"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(place)]
    if subprocess.run(mount, check=False).returncode:
        pytest.skip("no file system can be mounted")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_keeps_what_fits_and_the_rest_is_decoded_when_needed(
    image_folder: Path, small_disk: Path
) -> None:
    data = load_image_data(config_for(image_folder, small_disk, cache_bytes=10**9))
    assert 20 < stored(small_disk) // RAW < 66
    for i in range(0, 110, 10):
        assert np.array_equal(data.images[i], decode_image(read_content(data.images.where(i)), 32))
    assert "because its disk is full" in (data.cache_note or "")
    seen: list[int] = []  # the next search finds no more room, and decodes nothing again
    config = config_for(image_folder, small_disk, cache_bytes=10**9)
    load_image_data(config, lambda done, _total: seen.append(done))
    assert not seen


def test_a_quota_that_the_disk_tells_late_keeps_what_fits(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object) -> None:
        monkeypatch.undo()
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(os, "fsync", refuse)  # as NFS does
    data = load_image_data(config_for(image_folder, tmp_path))
    assert "because the user's quota is reached" in (data.cache_note or "")
    assert np.array_equal(data.images[3], decode_image(read_content(data.images.where(3)), 32))


@pytest.fixture
def large_folder(tmp_path: Path) -> Path:
    """A folder of 10,020 links to two images, of which the second cannot be read."""
    ok, image = cv2.imencode(".png", np.zeros((4, 4), np.uint8))
    assert ok
    (tmp_path / "good.png").write_bytes(image.tobytes())
    (tmp_path / "bad.png").write_bytes(b"")
    for split, number in (("train", 5000), ("val", 10)):
        for name in "ab":
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for i in range(number):
                bad = split == "train" and i % 20 == 0  # 5 %
                os.link(tmp_path / ("bad.png" if bad else "good.png"), folder / f"{i}.png")
    return tmp_path / "images"


def test_too_many_unreadable_images_are_told_after_the_first_thousand(
    large_folder: Path, tmp_path: Path
) -> None:
    seen: list[int] = []
    config = config_for(large_folder, tmp_path / "cache", image_size=4)
    expected = r"\d\d of 1000 randomly chosen images in .* cannot be read \(fewer than 1 %"
    with pytest.raises(DataError, match=expected) as caught:
        load_image_data(config, lambda done, _total: seen.append(done))
    assert not seen  # before the others are decoded
    assert str(caught.value).count(".png") == 10
    assert not list((tmp_path / "cache").glob("*/pixels.bin"))


def test_a_cache_without_any_room_is_not_built_again_at_each_opening(
    image_folder: Path, tmp_path: Path
) -> None:
    used = load_image_data(config_for(image_folder, tmp_path, decode_size=40))
    seen: list[int] = []
    config = config_for(image_folder, tmp_path, cache_bytes=1000)  # less than is in use
    for _ in range(2):
        data = load_image_data(config, lambda done, _total: seen.append(done))
        assert data.images.num_not_stored == 110
    assert len(seen) == 110
    assert used.images.num_not_stored == 0


@pytest.mark.parametrize("name", ["index.npz", "names", "facts.json"])
@pytest.mark.parametrize("is_there", [True, False])
def test_a_cache_that_a_crash_has_damaged_is_built_anew(
    image_folder: Path, tmp_path: Path, name: str, is_there: bool
) -> None:
    cache = load_image_data(config_for(image_folder, tmp_path)).images.cache
    (cache / name).unlink()
    if is_there:
        (cache / name).touch()
    data = load_image_data(config_for(image_folder, tmp_path))
    assert np.array_equal(data.images[3], decode_image(read_content(data.images.where(3)), 32))


def write_deep(folder: Path) -> Path:
    """A train folder of images of 12 bits in files of 16."""
    for i in range(20):
        path = folder / "train" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((32, 32), 200 * i, np.uint16))
    return folder


def test_how_train_is_divided_changes_no_pixels(tmp_path: Path) -> None:
    folder = write_deep(tmp_path / "images")
    whites = set()
    for seed in range(4):
        config = config_for(folder, tmp_path / str(seed), val_seed=seed)
        whites.add(load_image_data(config).images.rules.max_value)
    assert whites == {4095}


def test_a_split_alone_leaves_no_cache_to_a_search(tmp_path: Path) -> None:
    config = config_for(write_deep(tmp_path / "images"), tmp_path / "cache")
    alone = decode_folder(read_split(config, "train", ("a", "b"), of_train=False), config)
    assert alone.images.rules.max_value is None
    assert load_image_data(config).images.rules.max_value == 4095
