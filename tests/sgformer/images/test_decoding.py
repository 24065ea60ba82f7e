import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from permissions import open_to_others
from PIL import Image

from sgformer.data.decoding import decode_image

COLOURS = np.zeros((40, 60, 3), np.uint8)
COLOURS[:, :30], COLOURS[:, 30:] = (200, 30, 10), (10, 30, 200)  # RGB: red left, blue right


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


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (3, 7)])
def test_tiny_images_and_lines_become_small_images(tmp_path: Path, shape: tuple[int, int]) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(np.full((*shape, 3), 99, np.uint8)).save(path)
    image = decode_image(path, 40)
    assert image is not None
    assert min(image.shape[:2]) == 40
    assert max(image.shape[:2]) <= 8 * 40  # no crop reaches further out
    assert (image == 99).all()


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("most_that_pil_takes", [Image.MAX_IMAGE_PIXELS, 20_000_000])
def test_huge_images_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, most_that_pil_takes: int
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most_that_pil_takes)
    path = tmp_path / f"image.{suffix}"
    half = np.zeros((7_500, 8_000), np.uint8)
    half[:, 4_000:] = 255
    cv2.imwrite(str(path), half, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    image = decode_image(path, 40)
    assert image is not None
    assert image.shape == (40, 42, 3)
    assert (image[:, :19].max(), image[:, 23:].min()) == (0, 255)


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
        "from sgformer.data.decoding import decode_image\n"
        "if os.getuid() == 0: os.setuid(65534)  # root may read everything\n"
        "print(decode_image(Path(sys.argv[1]), 40))\n"
    )
    open_to_others(tmp_path)
    command = [sys.executable, "-c", script, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "None\n"
