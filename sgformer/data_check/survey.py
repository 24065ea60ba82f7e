"""Decodes every image of a list once, and keeps some thirty bytes of each.

A million images take 30 MB beside their names, and one decoded image a thread.
"""

import bisect
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from sgformer.cpus import in_threads
from sgformer.images.decoding import RgbImage, decode_content
from sgformer.images.pixel_rules import PixelRules
from sgformer.images.set_decoder import digest_of
from sgformer.sources.source import ImageSource

GREY: Final = "grey"  # a trait, beside those of sgformer.images.decoding
UNKNOWN: Final = "unknown"  # the format of what OpenCV reads and PIL does not know
COARSE: Final = 8  # most coloured images show a colour in one of eight rows and columns

Progress = Callable[[int, int], None]  # is told how many images are done, of how many


@dataclass
class Survey:
    """What the images of a list are, in the list's order; of unreadable ones nothing is known.

    Attributes:
        readable: Whether each image can be decoded, (N,).
        sides: The shorter and the longer side of each in pixels, (N, 2).
        contents: A number for each file's content, (N,); see `digest_of`.
        formats: The number of images of each format.
        traits: The number of images of each trait: those of `Decoded`, and GREY.
        first: The first image of each trait.
    """

    readable: npt.NDArray[np.bool_]
    sides: npt.NDArray[np.int32]
    contents: npt.NDArray[np.uint64]
    formats: Counter[str] = field(default_factory=Counter)
    traits: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)


class _Facts(NamedTuple):
    """What is kept of a readable image."""

    sides: tuple[int, int]
    content: int
    format: str
    traits: frozenset[str]


def survey(
    source: ImageSource, names: Sequence[str], rules: PixelRules, progress: Progress
) -> Survey:
    """What the images of these names, which are sorted, are."""
    number = len(names)
    found = Survey(
        np.zeros(number, np.bool_), np.zeros((number, 2), np.int32), np.zeros(number, np.uint64)
    )
    cv2.setNumThreads(1)
    order = source.in_reading_order(names)
    all_facts = in_threads(partial(_look_at, source, rules), order)
    for done, (name, facts) in enumerate(zip(order, all_facts, strict=True), 1):
        if facts is not None:
            i = bisect.bisect_left(names, name)
            found.readable[i], found.sides[i], found.contents[i] = True, facts.sides, facts.content
            found.formats[facts.format] += 1
            for trait in facts.traits:
                found.traits[trait] += 1
                found.first[trait] = min(name, found.first.get(trait, name))
        progress(done, number)
    return found


def _look_at(source: ImageSource, rules: PixelRules, name: str) -> _Facts | None:
    """The facts of an image; None if a search could not read it either."""
    content = source.read(name)
    # At least 1 pixel a side is asked for: images above HUGE_PIXELS may come at an eighth.
    decoded = decode_content(content, 1, rules)
    if decoded.pixels is None:
        return None
    header = decoded.header
    size = header.size if header.format else decoded.pixels.shape[:2]
    traits = decoded.traits | ({GREY} if is_grey(decoded.pixels) else set())
    return _Facts(
        (min(size), max(size)), digest_of(content), header.format or UNKNOWN, frozenset(traits)
    )


def is_grey(pixels: RgbImage) -> bool:
    """Whether red, green and blue are equal in each pixel, however the image is stored."""
    for part in (pixels[::COARSE, ::COARSE], pixels):
        red, green, blue = part[..., 0], part[..., 1], part[..., 2]
        if not (np.array_equal(red, green) and np.array_equal(green, blue)):
            return False
    return True
