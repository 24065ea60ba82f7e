"""The range of values of a set's deep images, which decides what becomes white."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from sgformer.cpus import in_threads
from sgformer.images.decoding import read_content, read_deep
from sgformer.images.headers import DAMAGED, is_shallow_png, read_header
from sgformer.images.pixel_rules import WHITE_OF_16_BITS, white_of_largest

SUFFIXES: Final = (".apng", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff")
MOST_MEASURED: Final = 1000
_HEAD: Final = 32  # bytes that tell a PNG's bit depth


def measured_white(paths: Sequence[Path | str]) -> float | None:
    """The value that becomes 255 in a set's deep images; None: it has none that needs one.

    At most MOST_MEASURED images are looked at, evenly spread over the paths, which makes the
    result the same on every node. A PGM or PPM that declares a range of its own does not count.
    """
    found = [one for one in in_threads(_largest_value, _measured(paths)) if one is not None]
    if not found:
        return None
    largest, is_floating = max(found)
    return white_of_largest(largest, is_floating=is_floating)


def _measured(paths: Sequence[Path | str]) -> list[Path]:
    """The paths that are looked at. Of a million, strings take far less memory than Paths."""
    able = [path for path in paths if os.fspath(path).lower().endswith(SUFFIXES)]
    return [Path(path) for path in able[:: max(1, -(-len(able) // MOST_MEASURED))]]


def _largest_value(path: Path) -> tuple[float, bool] | None:
    """The largest value, and whether values are floating-point; None: not deep, or damaged."""
    try:
        with path.open("rb") as file:
            if is_shallow_png(file.read(_HEAD)):
                return None
    except OSError:
        return None
    content = read_content(path)
    header = read_header(content)
    if not header.is_deep or header.own_max not in (None, WHITE_OF_16_BITS):
        return None
    try:
        image = read_deep(content, header)
    except (cv2.error, *DAMAGED):
        return None
    if image is None or image.dtype == np.uint8:
        return None
    colours = image[..., :3]
    is_floating = bool(np.issubdtype(image.dtype, np.floating))
    finite = colours[np.isfinite(colours)] if is_floating else colours
    return (float(finite.max()), is_floating) if finite.size else None
