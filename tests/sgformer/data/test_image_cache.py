import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from sgformer.config import DataConfig
from sgformer.data.image_cache import decode_folder, decode_image, load_image_data
from sgformer.data.image_folder import read_split
from sgformer.errors import DataError

COLOURS = np.zeros((40, 60, 3), np.uint8)
COLOURS[:, :30], COLOURS[:, 30:] = (200, 30, 10), (10, 30, 200)  # RGB: red left, blue right


def config_for(folder: Path, cache_dir: Path, **values: object) -> DataConfig:
    data = {"data_dir": folder, "image_size": 32, "crop_pct": 1.0, "cache_dir": cache_dir}
    return DataConfig.model_validate(data | values)


def is_red_left_blue_right(image: np.ndarray) -> bool:
    left, right = image[20, 10].astype(int), image[20, -10].astype(int)
    return bool(left[0] > 150 > left[2] and right[2] > 150 > right[0])


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp", "tif"])
def test_images_come_out_in_rgb(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(COLOURS).save(path)
    image = decode_image(path, 40)
    assert image is not None
    assert (image.shape, image.dtype) == ((40, 60, 3), np.uint8)
    assert is_red_left_blue_right(image)


def test_a_rotated_photo_comes_out_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera turned: to be shown a quarter clockwise
    path = tmp_path / "image.jpg"
    Image.fromarray(np.rot90(COLOURS).copy()).save(path, exif=exif)
    image = decode_image(path, 40)
    assert image is not None
    assert is_red_left_blue_right(image)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16", "1"])
def test_other_colour_modes_come_out_as_rgb(tmp_path: Path, mode: str) -> None:
    if mode == "I;16":
        source = Image.fromarray((np.arange(2400, dtype=np.uint16) * 27).reshape(40, 60))
    else:
        source = Image.fromarray(COLOURS).convert(mode)
    path = tmp_path / ("image.jpg" if mode == "CMYK" else "image.png")
    source.save(path)
    image = decode_image(path, 40)
    assert image is not None
    assert (image.shape, image.dtype) == ((40, 60, 3), np.uint8)
    if mode in {"P", "RGBA", "CMYK"}:
        assert is_red_left_blue_right(image)
    else:
        assert np.ptp(image.astype(int), axis=2).max() == 0


@pytest.mark.parametrize(("side", "shape"), [(20, (20, 30, 3)), (80, (80, 120, 3))])
def test_the_shorter_side_is_resized(tmp_path: Path, side: int, shape: tuple[int, ...]) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(COLOURS).save(path)
    image = decode_image(path, side)
    assert image is not None
    assert image.shape == shape


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_cut_empty_and_foreign_files_are_unreadable(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    assert decode_image(path, 40) is not None
    cut(path)
    assert decode_image(path, 40) is None
    path.write_bytes(b"")
    assert decode_image(path, 40) is None
    path.write_text("no image at all")
    assert decode_image(path, 40) is None


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (3, 7)])
def test_tiny_images_and_lines_become_small_images(tmp_path: Path, shape: tuple[int, int]) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(np.full((*shape, 3), 99, np.uint8)).save(path)
    image = decode_image(path, 40)
    assert image is not None
    assert min(image.shape[:2]) == 40
    assert max(image.shape[:2]) <= 8 * 40  # what is further out is in no crop
    assert (image == 99).all()


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_images_of_400_megapixels_are_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    half = np.zeros((20_000, 20_000), np.uint8)
    half[:, 10_000:] = 255
    cv2.imwrite(str(path), half, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    image = decode_image(path, 40)
    assert image is not None
    assert image.shape == (40, 40, 3)
    assert (image[:, :18].max(), image[:, 22:].min()) == (0, 255)


def test_a_pipe_is_not_waited_on(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert decode_image(tmp_path / "pipe.png", 40) is None


def test_a_file_that_may_not_be_read_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(COLOURS).save(path)
    path.chmod(0)
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from sgformer.data.image_cache import decode_image\n"
        "if os.getuid() == 0: os.setuid(65534)  # root may read everything\n"
        "print(decode_image(Path(sys.argv[1]), 40))\n"
    )
    for parent in [tmp_path, *tmp_path.parents][:3]:
        parent.chmod(0o755)
    command = [sys.executable, "-c", script, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "None\n"


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
    for old in (*tmp_path.iterdir(), tmp_path / ("0" * 32)):  # as of an older version
        old.mkdir() if not old.exists() else None
        os.utime(old, (0, 0))
    data = load_image_data(config, lambda done, _total: seen.append(done))
    assert len(seen) == 220
    assert (data.images[data.images.names.index("train/0/0.png")] == 7).all()
    assert len(list(tmp_path.glob("*/pixels.bin"))) == 1  # the outdated ones are gone
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


@pytest.mark.parametrize("tail", [b"\xff\xda trailer", b"\xff\xd8\xff\xda\x00", bytes(99)])
def test_what_a_camera_appends_to_a_jpeg_does_not_make_it_cut(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "image.jpg"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    for options in ({}, {"progressive": True}, {"exif": b"Exif\0\0\xff\xd9\xff\xda"}):
        Image.fromarray(noise).save(path, **options)
        assert decode_image(path, 40) is not None
        whole = path.read_bytes()
        path.write_bytes(whole + tail)
        assert decode_image(path, 40) is not None
        path.write_bytes(whole[: len(whole) * 2 // 3])
        assert decode_image(path, 40) is None


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
    # On a node that has not decoded them yet the change shows.
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


def test_two_processes_that_need_the_same_images_decode_them_once(
    image_folder: Path, tmp_path: Path
) -> None:
    config = config_for(image_folder, tmp_path)
    script = (
        "import sys\n"
        "from sgformer.config import DataConfig\n"
        "from sgformer.data.image_cache import load_image_data\n"
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


def test_fewer_than_one_in_a_hundred_unreadable_images_are_passed_over(
    own_image_folder: Path, tmp_path: Path
) -> None:
    bad = own_image_folder / "train" / "3" / "0.png"
    cut(bad)
    data = load_image_data(config_for(own_image_folder, tmp_path))
    assert data.unreadable == (bad,)
    assert len(data.samples("train")) == 59


def test_links_to_nowhere_are_unreadable_and_folders_are_no_images(
    own_image_folder: Path, tmp_path: Path
) -> None:
    link = own_image_folder / "train" / "3" / "link.png"
    link.symlink_to(tmp_path / "nowhere.png")
    (own_image_folder / "train" / "3" / "folder.png").mkdir()
    data = load_image_data(config_for(own_image_folder, tmp_path))
    assert data.unreadable == (link,)
    assert len(data.samples("train")) == 60


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


def test_more_unreadable_images_stop_it_naming_the_first_ten(
    own_image_folder: Path, tmp_path: Path
) -> None:
    for digit in range(12):
        cut(own_image_folder / "train" / str(digit % 10) / f"{digit // 10}.png")
    with pytest.raises(DataError, match=r"12 of 110 images in .* cannot be read") as caught:
        load_image_data(config_for(own_image_folder, tmp_path))
    assert str(caught.value).count(".png") == 10


def test_an_unusable_cache_folder_is_named(image_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot write the cache .*train\.data\.cache_dir"):
        load_image_data(config_for(image_folder, tmp_path / "file"))
