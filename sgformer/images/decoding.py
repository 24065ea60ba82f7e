"""Decoding of an image file to an RGB array of a given shorter side.

OpenCV decodes what it decodes rightly, PIL the rest: images with transparency, GIF, AVIF, and PGM
of fewer than 8 bits. Only resizing needs torch, which is imported when the first image is resized.
"""

import contextlib
import threading
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from sgformer.images.headers import DAMAGED, MOST_PIXELS, Header, read_header
from sgformer.images.pixel_rules import PixelRules, laid_on, to_8_bits

RgbImage = npt.NDArray[np.uint8]  # (H, W, 3)
# Longer side / shorter side. Of a longer image only the middle is kept: no crop of training or
# evaluation reaches further, and an image one pixel high would grow to gigabytes.
MAX_ASPECT_RATIO: Final = 8
# Larger images are decoded one at a time, to bound memory.
HUGE_PIXELS: Final = 50_000_000
# Not every build of OpenCV reads them, and with opacity OpenCV 5.0 gives AVIF in BGR.
FORMATS_OF_PIL: Final = ("AVIF", "GIF")
DEFAULT_RULES: Final = PixelRules()
FIRST_FRAME, TRANSPARENT, DEEP = "first frame", "transparent", "deep"
CLIPPED, NEGATIVE = "clipped", "negative"
_one_huge_at_a_time = threading.Lock()
# OpenCV logs nothing about unreadable images, because the callers report them.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


@dataclass
class Decoded:
    """An image that was decoded, before it is resized.

    Attributes:
        pixels: (H, W, 3) uint8; None if the file is not a complete, readable image.
        traits: What was done to it that a user should know: FIRST_FRAME (it has others),
            TRANSPARENT (laid on the background), DEEP (scaled from more than 8 bits), CLIPPED
            (some values are above the scale), NEGATIVE (some values are below 0).
        header: What the file's header tells; an empty one if the file was not opened.
    """

    pixels: RgbImage | None
    traits: set[str] = field(default_factory=set)
    header: Header = field(default_factory=Header)


def decode_image(
    content: bytes, shorter_side: int, rules: PixelRules = DEFAULT_RULES
) -> RgbImage | None:
    """A file's image, upright and in RGB, resized to a shorter side of `shorter_side` pixels.

    Size and filter are those of timm's evaluation. torch's kernel replaces PIL's: it takes a
    sixth of the time, and pixel values differ by at most 2 of 255.

    Returns:
        (H, W, 3) uint8; None if the file is not a complete, readable image.
    """
    pixels = decode_content(content, shorter_side, rules).pixels
    return None if pixels is None else resize(pixels, shorter_side)


def decode_content(content: bytes, shorter_side: int, rules: PixelRules) -> Decoded:
    """The image in a file's bytes; a JPEG above HUGE_PIXELS may come at an eighth of its size."""
    if not content or _is_cut_jpeg(content):
        return Decoded(None)
    header = read_header(content)
    num_pixels = header.size[0] * header.size[1]
    if num_pixels > MOST_PIXELS:
        return Decoded(None)
    is_huge = num_pixels > HUGE_PIXELS
    try:
        with _one_huge_at_a_time if is_huge else contextlib.nullcontext():
            image = _decode(content, header, shorter_side, rules)
    except (cv2.error, *DAMAGED):
        return Decoded(None)
    image.header = header
    if image.pixels is not None and header.has_frames:
        image.traits.add(FIRST_FRAME)
    return image


def _is_cut_jpeg(content: bytes) -> bool:
    """Whether this is a JPEG without end marker; OpenCV would fill the missing part with grey.

    The search for the marker begins at the first scan. Scan data cannot contain the marker's
    bytes, but a thumbnail before the scan can, and so can data that some cameras append.

    Source: ITU-T T.81, B.1: up to the first scan, a JPEG consists of segments that start with
    their length.
    """
    if not content.startswith(b"\xff\xd8"):
        return False
    at = 2
    while content[at : at + 1] == b"\xff" and content[at + 1 : at + 2] != b"\xda":
        at += 1 if content[at + 1 : at + 2] == b"\xff" else 2 + _number(content[at + 2 : at + 4])
    return content.find(b"\xff\xd9", at) < 0


def _number(two_bytes: bytes) -> int:
    """The length of a JPEG segment in bytes, from two big-endian bytes."""
    return int.from_bytes(two_bytes, "big")


def _decode(content: bytes, header: Header, shorter_side: int, rules: PixelRules) -> Decoded:
    if header.is_deep:
        return _decode_deep(content, header, rules)
    few_bits = header.own_max is not None and header.own_max < 255
    if header.has_alpha or few_bits or header.format in FORMATS_OF_PIL:
        return _decode_by_pil(content, rules)
    data = np.frombuffer(content, dtype=np.uint8)
    # OpenCV decodes a JPEG at an eighth of each side at once. It decodes other formats in full
    # before it reduces them.
    width, height = header.size
    if width * height > HUGE_PIXELS and min(width, height) // 8 >= shorter_side:
        image: Any = cv2.imdecode(data, cv2.IMREAD_REDUCED_COLOR_8)
        return Decoded(None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    return Decoded(_unless_empty(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)))


def _decode_by_pil(content: bytes, rules: PixelRules) -> Decoded:
    with Image.open(BytesIO(content)) as image:
        pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGBA"))
    colours, alpha = pixels[..., :3], pixels[..., 3]
    if alpha.min() == 255:
        return Decoded(np.ascontiguousarray(colours))
    return Decoded(laid_on(colours, alpha, rules.background), {TRANSPARENT})


def _decode_deep(content: bytes, header: Header, rules: PixelRules) -> Decoded:
    """An image of more than 8 bits, scaled to 8."""
    image = read_deep(content, header)
    if image is None:
        return Decoded(None)
    white = rules.white_of(image.dtype, header.own_max)
    traits = set() if image.dtype == np.uint8 else {DEEP}
    colours = image[..., :3]
    traits |= {CLIPPED} if colours.max() > white else set()
    traits |= {NEGATIVE} if colours.min() < 0 else set()
    pixels = to_8_bits(colours, white)
    if image.shape[2] == 4:
        # Opacity has the whole range of its type, whatever range the colours use.
        opaque = PixelRules().white_of(image.dtype)
        alpha = to_8_bits(image[..., 3], opaque)
        if alpha.min() < 255:
            return Decoded(laid_on(pixels, alpha, rules.background), traits | {TRANSPARENT})
    return Decoded(pixels, traits)


def read_deep(content: bytes, header: Header) -> npt.NDArray[Any] | None:
    """An image of more than 8 bits with its own values: (H, W, 3), or 4 with opacity, in RGB."""
    data = np.frombuffer(content, dtype=np.uint8)
    # IMREAD_UNCHANGED does not turn rotated photographs. OpenCV 5.0 gives nonsense for a TIFF of
    # 16 bits if it is asked for RGB.
    image = None
    if not header.has_alpha:
        image = _unless_empty(cv2.imdecode(data, cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR))
    if image is None:
        image = _unless_empty(cv2.imdecode(data, cv2.IMREAD_UNCHANGED))
    if image is None:
        return None
    if image.ndim == 2:
        return np.repeat(image[..., None], 3, axis=2)
    order = {3: (2, 1, 0), 4: (2, 1, 0, 3)}.get(image.shape[2])
    return None if order is None else np.ascontiguousarray(image[..., order])


def _unless_empty(image: Any) -> Any:
    """OpenCV's image; None for an empty one, too."""
    return None if image is None or not image.size else image


def resize(image: RgbImage, shorter_side: int) -> RgbImage:
    """The image, or a panorama's middle, resized to a shorter side of `shorter_side` pixels."""
    height, width = image.shape[:2]
    longest = min(height, width) * MAX_ASPECT_RATIO
    if max(height, width) > longest:
        top, left = max(0, height - longest) // 2, max(0, width - longest) // 2
        image = image[top : top + longest, left : left + longest]
        height, width = image.shape[:2]
    if min(height, width) == shorter_side:
        return image
    # torchvision rounds down, too; one more pixel would shift the whole image's content.
    longer_side = int(shorter_side * max(height, width) / min(height, width))
    size = (shorter_side, longer_side) if width > height else (longer_side, shorter_side)
    import torch
    import torch.nn.functional as F

    batch_BCHW = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
    resized = F.interpolate(batch_BCHW, size, mode="bicubic", antialias=True)
    return np.asarray(resized[0].permute(1, 2, 0).numpy(), dtype=np.uint8)
