import io
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from permissions import open_to_others
from PIL import Image

from sgformer.images.decoding import (
    CLIPPED,
    DEEP,
    FIRST_FRAME,
    NEGATIVE,
    TRANSPARENT,
    decode_content,
    decode_image,
)
from sgformer.images.pixel_rules import PixelRules
from sgformer.sources.source import read_content

COLOURS = np.zeros((40, 60, 3), np.uint8)
COLOURS[:, :30], COLOURS[:, 30:] = (200, 30, 10), (10, 30, 200)  # RGB: red left, blue right


def is_red_left_blue_right(image: np.ndarray) -> bool:
    left, right = image[20, 10].astype(int), image[20, -10].astype(int)
    return bool(left[0] > 150 > left[2] and right[2] > 150 > right[0])


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp", "tif"])
def test_images_come_out_in_rgb(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(COLOURS).save(path)
    image = decode_image(read_content(path), 40)
    assert image is not None
    assert (image.shape, image.dtype) == ((40, 60, 3), np.uint8)
    assert is_red_left_blue_right(image)


def test_a_rotated_photo_comes_out_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera turned: to be shown a quarter clockwise
    path = tmp_path / "image.jpg"
    Image.fromarray(np.rot90(COLOURS).copy()).save(path, exif=exif)
    image = decode_image(read_content(path), 40)
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
    image = decode_image(read_content(path), 40)
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
    image = decode_image(read_content(path), side)
    assert image is not None
    assert image.shape == shape


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_cut_empty_and_foreign_files_are_unreadable(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    assert decode_image(read_content(path), 40) is not None
    cut(path)
    assert decode_image(read_content(path), 40) is None
    path.write_bytes(b"")
    assert decode_image(read_content(path), 40) is None
    path.write_text("no image at all")
    assert decode_image(read_content(path), 40) is None


@pytest.mark.parametrize("tail", [b"\xff\xda trailer", b"\xff\xd8\xff\xda\x00", bytes(99)])
def test_what_a_camera_appends_to_a_jpeg_does_not_make_it_cut(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "image.jpg"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    for options in ({}, {"progressive": True}, {"exif": b"Exif\0\0\xff\xd9\xff\xda"}):
        Image.fromarray(noise).save(path, **options)
        assert decode_image(read_content(path), 40) is not None
        whole = path.read_bytes()
        path.write_bytes(whole + tail)
        assert decode_image(read_content(path), 40) is not None
        path.write_bytes(whole[: len(whole) * 2 // 3])
        assert decode_image(read_content(path), 40) is None


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (3, 7)])
def test_tiny_images_and_lines_become_small_images(tmp_path: Path, shape: tuple[int, int]) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(np.full((*shape, 3), 99, np.uint8)).save(path)
    image = decode_image(read_content(path), 40)
    assert image is not None
    assert min(image.shape[:2]) == 40
    assert max(image.shape[:2]) <= 8 * 40  # no crop reaches further out
    assert (image == 99).all()


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_huge_images_are_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    half = np.zeros((7_500, 8_000), np.uint8)
    half[:, 4_000:] = 255
    cv2.imwrite(str(path), half, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    image = decode_image(read_content(path), 40)
    assert image is not None
    assert image.shape == (40, 42, 3)
    assert (image[:, :19].max(), image[:, 23:].min()) == (0, 255)


def test_a_pipe_is_not_waited_on(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert decode_image(read_content(tmp_path / "pipe.png"), 40) is None


def test_a_file_that_may_not_be_read_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(COLOURS).save(path)
    path.chmod(0)
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from sgformer.images.decoding import decode_image\n"
        "from sgformer.sources.source import read_content\n"
        "if os.getuid() == 0: os.setuid(65534)  # root may read everything\n"
        "print(decode_image(read_content(Path(sys.argv[1])), 40))\n"
    )
    open_to_others(tmp_path)
    command = [sys.executable, "-c", script, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "None\n"


def written(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def encoded(values: np.ndarray, suffix: str) -> bytes:
    ok, content = cv2.imencode(suffix, values)
    assert ok
    return content.tobytes()


RED_AND_NOTHING = np.zeros((16, 16, 4), np.uint8)  # red on the left, transparent on the right
RED_AND_NOTHING[..., 0] = 200
RED_AND_NOTHING[:, :8, 3] = 255
TRANSPARENT_RGB = Image.fromarray(RED_AND_NOTHING)
TRANSPARENT_FILES = {
    "png": written(TRANSPARENT_RGB, "PNG"),
    "webp": written(TRANSPARENT_RGB, "WEBP", lossless=True),
    "tiff": written(TRANSPARENT_RGB, "TIFF"),
    "gif": written(TRANSPARENT_RGB, "GIF"),
    "avif": written(TRANSPARENT_RGB, "AVIF"),
    "palette": written(TRANSPARENT_RGB.quantize(8), "PNG"),
    "png of 16 bits": encoded(
        np.where(RED_AND_NOTHING > 0, 65535, 0).astype(np.uint16)[..., (2, 1, 0, 3)], ".png"
    ),
    "tiff of 16 bits": encoded(
        np.where(RED_AND_NOTHING > 0, 65535, 0).astype(np.uint16)[..., (2, 1, 0, 3)], ".tiff"
    ),
}


@pytest.mark.parametrize("name", TRANSPARENT_FILES)
@pytest.mark.parametrize("background", [(255, 255, 255), (0, 80, 160)])
def test_transparent_images_of_any_format_are_laid_on_the_background(
    name: str, background: tuple[int, int, int]
) -> None:
    found = decode_content(TRANSPARENT_FILES[name], 16, PixelRules(background))
    assert found.pixels is not None
    assert TRANSPARENT in found.traits
    left, right = found.pixels[8, 3].astype(int), found.pixels[8, 12]
    assert left[0] >= 199
    assert left[1:].max() <= 1
    assert tuple(right) == background


def test_grey_with_transparency_and_one_transparent_colour_follow_the_same_rule() -> None:
    with_alpha = written(TRANSPARENT_RGB.convert("LA"), "PNG")
    one_colour = written(Image.new("L", (16, 16), 5), "PNG", transparency=5)
    for content in (with_alpha, one_colour):
        found = decode_content(content, 16, PixelRules())
        assert found.pixels is not None
        assert tuple(found.pixels[8, 12]) == (255, 255, 255)


def test_half_transparent_pixels_are_mixed_and_opaque_ones_are_not_noted() -> None:
    half = np.full((8, 8, 4), 100, np.uint8)
    half[..., 3] = 128
    found = decode_content(written(Image.fromarray(half), "PNG"), 8, PixelRules())
    assert found.pixels is not None
    assert found.pixels[0, 0, 0] == round((100 * 128 + 255 * 127) / 255)
    half[..., 3] = 255
    assert not decode_content(written(Image.fromarray(half), "PNG"), 8, PixelRules()).traits


@pytest.mark.parametrize("form", ["GIF", "AVIF", "JPEG"])
def test_gif_avif_and_jfif_come_out_in_rgb(tmp_path: Path, form: str) -> None:
    path = tmp_path / ("image.jfif" if form == "JPEG" else f"image.{form.lower()}")
    Image.fromarray(COLOURS).save(path, form)
    image = decode_image(read_content(path), 40)
    assert image is not None
    assert is_red_left_blue_right(image)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_the_first_frame_of_several_is_taken_and_noted(form: str) -> None:
    first, second = (Image.new("RGB", (16, 16), c) for c in ((200, 0, 0), (0, 0, 200)))
    content = written(first, form, save_all=True, append_images=[second])
    found = decode_content(content, 16, PixelRules())
    assert found.pixels is not None
    assert found.traits == {FIRST_FRAME}
    assert found.pixels[8, 8, 0] > 150 > found.pixels[8, 8, 2]
    assert not decode_content(written(first, form), 16, PixelRules()).traits


TWELVE_BITS = np.arange(4096, dtype=np.uint16).reshape(64, 64)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("num_channels", [1, 3])
def test_12_bits_in_16_have_the_range_of_12_bits(suffix: str, num_channels: int) -> None:
    values = np.repeat(TWELVE_BITS[..., None], num_channels, axis=2).squeeze()
    found = decode_content(encoded(values, suffix), 64, PixelRules(max_value=4095))
    assert found.pixels is not None
    assert found.traits == {DEEP}
    assert np.abs(found.pixels[..., 1] - TWELVE_BITS / 4095 * 255).max() <= 0.5


def test_deep_colours_are_not_mixed_up() -> None:
    colours = np.zeros((16, 16, 3), np.uint16)
    colours[..., 2] = 4095  # OpenCV writes blue, green, red
    for suffix in (".png", ".tiff"):
        found = decode_content(encoded(colours, suffix), 16, PixelRules(max_value=4095))
        assert found.pixels is not None
        assert found.pixels.reshape(-1, 3).tolist() == [[255, 0, 0]] * 256


def test_without_a_maximum_the_upper_byte_is_taken() -> None:
    values = (np.arange(4096, dtype=np.uint16) * 16).reshape(64, 64)
    found = decode_content(encoded(values, ".png"), 64, PixelRules())
    assert found.pixels is not None
    assert np.array_equal(found.pixels[..., 0], values >> 8)


def test_values_beyond_the_range_are_clipped_and_noted() -> None:
    found = decode_content(encoded(TWELVE_BITS, ".png"), 64, PixelRules(max_value=1023))
    assert found.pixels is not None
    assert found.traits == {DEEP, CLIPPED}
    assert (found.pixels.reshape(-1, 3)[1023:] == 255).all()
    negative = decode_content(
        encoded(np.full((8, 8), -5, np.int16), ".tiff"), 8, PixelRules(max_value=1023)
    )
    assert negative.pixels is not None
    assert negative.traits == {DEEP, NEGATIVE}
    assert not negative.pixels.any()


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int32, np.uint32])
def test_wide_numbers_of_a_tiff_are_read(kind: type) -> None:
    white = 1.0 if np.issubdtype(kind, np.floating) else 1000.0
    values = (np.linspace(0, 1, 64).reshape(8, 8) * white).astype(kind)
    found = decode_content(encoded(values, ".tiff"), 8, PixelRules(max_value=white))
    assert found.pixels is not None
    assert np.abs(found.pixels[..., 0] - values / white * 255).max() <= 0.5


def netpbm(maxval: int, values: list[int]) -> bytes:
    kind = ">u2" if maxval > 255 else "u1"
    header = f"P5\n# 7 7 7\n{len(values)} 1\n{maxval}\n".encode()
    return header + np.array(values).astype(kind).tobytes()


@pytest.mark.parametrize("maxval", [1, 15, 100, 255, 1000, 1023, 4095])
def test_a_pgm_is_scaled_by_the_maximum_that_it_declares(maxval: int) -> None:
    content = netpbm(maxval, [0, maxval // 2, maxval])
    found = decode_content(content, 1, PixelRules(max_value=50_000))
    assert found.pixels is not None
    expected = [0, maxval // 2 / maxval * 255, 255]
    assert np.abs(found.pixels[0, :, 0] - expected).max() <= 0.5
    assert found.traits == ({DEEP} if maxval > 255 else set())


DAMAGED = {
    **TRANSPARENT_FILES,
    "jpeg": written(Image.fromarray(COLOURS), "JPEG"),
    "deep": encoded(TWELVE_BITS, ".png"),
    "deep tiff": encoded(TWELVE_BITS, ".tiff"),
    "pgm": netpbm(1023, [5] * 300),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_of_any_format_ends_no_program(name: str) -> None:
    random = np.random.default_rng(0)
    for _ in range(60):
        content = bytearray(DAMAGED[name])
        for at in random.integers(0, min(len(content), 400), 8):
            content[at] = random.integers(256)
        cut = content[: random.integers(1, len(content))]
        for damaged in (content, cut):
            image = decode_content(bytes(damaged), 16, PixelRules()).pixels
            assert image is None or image.dtype == np.uint8
