"""What an image file's header tells, without decoding the image."""

import re
import struct
import warnings
import zlib
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final

from PIL import Image
from PIL.TiffImagePlugin import BITSPERSAMPLE

# OpenCV refuses larger images, and so does this package: PIL's own, lower limit is lifted.
MOST_PIXELS: Final = 2**30
Image.MAX_IMAGE_PIXELS = None
# Of damaged files, which the callers report.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
# What PIL raises on a damaged file; its readers of formats do not agree on one error.
DAMAGED: Final = (
    OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, AttributeError,
    ArithmeticError, AssertionError, MemoryError, RuntimeError, struct.error, zlib.error,
)  # fmt: skip
_WITH_ALPHA: Final = ("RGBA", "RGBa", "LA", "La", "PA")
_WITH_FRAMES: Final = ("AVIF", "GIF", "PNG", "TIFF", "WEBP")
_TIFF: Final = (b"II*\0", b"MM\0*")
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_GAP: Final = rb"(?:\s|#[^\n]*\n)+"
# Source: netpbm's pgm(5) and ppm(5): magic number, width, height, maxval.
_MAXVAL: Final = re.compile(rb"P[2356]" + _GAP + rb"\d+" + _GAP + rb"\d+" + _GAP + rb"(\d{1,5})\s")


@dataclass(frozen=True)
class Header:
    """What the header of an image file tells.

    Attributes:
        format: PIL's name of the format; empty if PIL cannot read it.
        size: Width and height in pixels; (1, 1) if they are unknown.
        is_deep: Whether a channel has more than 8 bits.
        own_max: The largest value that the file declares (PGM, PPM); None: it declares none.
        has_alpha: Whether the image may be transparent.
        has_frames: Whether the file has several frames or pages.
    """

    format: str = ""
    size: tuple[int, int] = (1, 1)
    is_deep: bool = False
    own_max: int | None = None
    has_alpha: bool = False
    has_frames: bool = False


def read_header(content: bytes) -> Header:
    """The header of a file with this content; an empty one if PIL cannot read it."""
    try:
        with Image.open(BytesIO(content)) as image:
            own_max = _own_max(content)
            return Header(
                format=image.format or "",
                size=image.size,
                is_deep=_is_deep(image, content) or (own_max or 0) > 255,
                own_max=own_max,
                has_alpha=image.mode in _WITH_ALPHA or "transparency" in image.info,
                has_frames=image.format in _WITH_FRAMES and _has_frames(image),
            )
    except DAMAGED:
        # OpenCV may be able to read it: PIL knows no TIFF of 64 bits, for example.
        return Header(is_deep=content.startswith(_TIFF))


def _own_max(content: bytes) -> int | None:
    found = _MAXVAL.match(content)
    return int(found[1]) if found else None


def is_shallow_png(content: bytes) -> bool:
    """Whether this is a PNG, or begins as one, of at most 8 bits a channel."""
    return content.startswith(_PNG) and len(content) > 24 and content[24] <= 8


def _is_deep(image: Image.Image, content: bytes) -> bool:
    if content.startswith(_PNG):
        return not is_shallow_png(content)  # PIL's mode does not tell it of RGB
    if image.format == "TIFF":
        tags: Any = getattr(image, "tag_v2", {})
        return bool(max(tags.get(BITSPERSAMPLE, (1,))) > 8)
    return image.mode.startswith(("I", "F"))


def _has_frames(image: Image.Image) -> bool:
    if image.format == "TIFF":
        return int(getattr(image, "n_frames", 1)) > 1
    return bool(getattr(image, "is_animated", False))
