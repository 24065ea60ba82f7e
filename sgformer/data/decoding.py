"""Decoding of an image file to an RGB array of a given shorter side.

Only resizing needs torch, which is imported when the first image is resized.
"""

import stat
import threading
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

RgbImage = npt.NDArray[np.uint8]  # (H, W, 3)
# Longer side / shorter side. Of a longer image only the middle is kept: no crop of training or
# evaluation reaches further, and an image one pixel high would grow to gigabytes.
MAX_ASPECT_RATIO: Final = 8
# Larger images are decoded one at a time, to bound memory.
HUGE_PIXELS: Final = 50_000_000
_one_huge_at_a_time = threading.Lock()
# PIL's warning is not needed: PIL only reads headers here, and OpenCV refuses to decode images of
# more than 2**30 pixels.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# OpenCV logs nothing about unreadable images, because the callers report them.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def decode_image(path: Path, shorter_side: int) -> RgbImage | None:
    """The image in a file, upright and in RGB, resized to a shorter side of `shorter_side` pixels.

    Size and filter are those of timm's evaluation. torch's kernel replaces PIL's: it takes a
    sixth of the time, and pixel values differ by at most 2 of 255.

    Returns:
        (H, W, 3) uint8; None if the file is not a complete, readable image.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return None
        content = path.read_bytes()
    except OSError:
        return None
    if not content or _is_cut_jpeg(content):
        return None
    try:
        image = _decode(content, shorter_side)
    except cv2.error:
        return None
    return None if image is None else np.asarray(_resize(image, shorter_side), dtype=np.uint8)


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


def _decode(content: bytes, shorter_side: int) -> Any:
    """The RGB image; an image above HUGE_PIXELS at an eighth of its size if that is enough."""
    data, size = np.frombuffer(content, dtype=np.uint8), _size(content)
    if size is not None and size[0] * size[1] <= HUGE_PIXELS:
        return cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
    # OpenCV decodes a JPEG at an eighth of each side at once. It decodes other formats in full
    # before it reduces them, so huge images are decoded one at a time.
    with _one_huge_at_a_time:
        if size is None or min(size) // 8 < shorter_side:
            return cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
        image = cv2.imdecode(data, cv2.IMREAD_REDUCED_COLOR_8)
        return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _size(content: bytes) -> tuple[int, int] | None:
    """(width, height) in pixels from the file's header; None if PIL refuses so large an image."""
    try:
        with Image.open(BytesIO(content)) as image:
            return image.size
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError):
        return (1, 1)  # PIL cannot read this format; OpenCV may be able to
    except Image.DecompressionBombError:
        return None


def _resize(image: Any, shorter_side: int) -> Any:
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
    return resized[0].permute(1, 2, 0).numpy()
