from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from sgformer.images.value_range import measured_white
from sgformer.sources.source import source_of


def white_of(*paths: Path) -> float | None:
    names = [path.name for path in paths]
    return measured_white(source_of(paths[0].parent, names), names)


def write(folder: Path, name: str, values: np.ndarray) -> Path:
    path = folder / name
    assert cv2.imwrite(str(path), values)
    return path


def test_the_largest_value_of_all_deep_images_counts(tmp_path: Path) -> None:
    paths = [
        write(tmp_path, f"{i}.{suffix}", np.full((4, 4), value, np.uint16))
        for i, (value, suffix) in enumerate([(20, "png"), (230, "tiff"), (3000, "png")])
    ]
    assert white_of(*paths[:2]) == 255
    assert white_of(*paths) == 4095


def test_images_of_8_bits_and_pgm_with_a_maximum_of_their_own_do_not_count(
    tmp_path: Path,
) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "plain.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "plain.jpg")
    (tmp_path / "own.pgm").write_bytes(b"P5 1 1 1023\n\x03\xff")
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert white_of(*sorted(tmp_path.iterdir()), tmp_path / "gone.png") is None


def test_a_pgm_of_16_bits_counts_as_it_may_hold_fewer(tmp_path: Path) -> None:
    (tmp_path / "a.pgm").write_bytes(b"P5 1 1 65535\n\x03\xff")
    assert white_of(tmp_path / "a.pgm") == 1023


def test_floating_point_numbers_count_without_those_that_are_none(tmp_path: Path) -> None:
    values = np.array([[0.5, np.nan], [np.inf, 0.1]], np.float32)
    assert white_of(write(tmp_path, "a.tiff", values)) == 1
