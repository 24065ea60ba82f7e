"""The range of values of a set's deep images, which decides what becomes white."""

import os
from collections.abc import Sequence
from functools import partial
from typing import Final

import cv2
import numpy as np

from sgformer.cpus import in_threads
from sgformer.images.decoding import read_deep
from sgformer.images.headers import DAMAGED, is_shallow_png, read_header
from sgformer.images.pixel_rules import WHITE_OF_16_BITS, white_of_largest
from sgformer.sources.source import ImageSource

SUFFIXES: Final = (".apng", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff")
MOST_MEASURED: Final = 1000
_HEAD: Final = 32  # bytes that tell a PNG's bit depth


def measured_white(source: ImageSource, names: Sequence[str]) -> float | None:
    """The value that becomes 255 in a set's deep images; None: it has none that needs one.

    At most MOST_MEASURED images are looked at, evenly spread over the names, which makes the
    result the same on every node. A PGM or PPM that declares a range of its own does not count.

    Args:
        source: Reads the images.
        names: The names of train images, sorted.
    """
    able = [name for name in names if _may_be_deep(name)]
    measured = source.spread(able, MOST_MEASURED)
    all_found = in_threads(partial(_largest_value, source), measured)
    found = [one for one in all_found if one is not None]
    if not found:
        return None
    largest, is_floating = max(found)
    return white_of_largest(largest, is_floating=is_floating)


def _may_be_deep(name: str) -> bool:
    """Whether an image of this name may be; one without a suffix, as in parquet files, may."""
    ending = os.path.splitext(name)[1].lower()  # noqa: PTH122  of a million names; Path is slow
    return not ending or ending in SUFFIXES


def _largest_value(source: ImageSource, name: str) -> tuple[float, bool] | None:
    """The largest value, and whether values are floating-point; None: not deep, or damaged."""
    if is_shallow_png(source.read(name, _HEAD)):
        return None
    content = source.read(name)
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
