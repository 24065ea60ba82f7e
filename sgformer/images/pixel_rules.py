"""How pixels that are not 8-bit RGB become so: deep images are scaled, transparent ones laid on.

The same rules hold in training, evaluation and prediction; an exported model carries them.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
WHITE_OF_16_BITS: Final = 65535


@dataclass(frozen=True)
class PixelRules:
    """The rules by which pixels become 8-bit RGB.

    Attributes:
        background: Red, green and blue, 0..255, on which transparent images are laid.
        max_value: The value that becomes 255 in images of more than 8 bits, unless the file
            declares its own. None: 65535, or 1 in images of floating-point numbers.
    """

    background: tuple[int, int, int] = (255, 255, 255)
    max_value: float | None = None

    def white_of(self, kind: npt.DTypeLike, own_max: int | None = None) -> float:
        """The value that becomes 255 in an image of this type of number.

        A declared 65535 only says that the file has 16 bits, so it does not count.
        """
        if own_max is not None and own_max != WHITE_OF_16_BITS:
            return own_max
        default = 1.0 if np.issubdtype(kind, np.floating) else WHITE_OF_16_BITS
        return self.max_value or default


def to_8_bits(values: npt.NDArray[Any], white: float) -> Pixels:
    """The values scaled so that `white` becomes 255; larger ones become 255, negative ones 0."""
    if values.dtype == np.uint8:
        return np.asarray(values)
    if values.dtype != np.uint16:
        with np.errstate(invalid="ignore", over="ignore"):
            scaled = np.rint(np.nan_to_num(values.astype(np.float32)) * (255 / white))
        return np.asarray(np.clip(scaled, 0, 255), dtype=np.uint8)
    steps = np.arange(2**16)
    # The upper byte is what OpenCV gives for 16 bits.
    table = steps >> 8 if white == WHITE_OF_16_BITS else np.rint(steps * (255 / white))
    return np.asarray(np.clip(table, 0, 255).astype(np.uint8)[values])


def laid_on(colours: Pixels, alpha: Pixels, background: tuple[int, int, int]) -> Pixels:
    """The image (H, W, 3) on an opaque background, by its alpha (H, W)."""
    share = alpha[..., None].astype(np.uint32)
    mixed = colours * share + np.array(background, np.uint32) * (255 - share)
    return np.asarray((mixed + 127) // 255, dtype=np.uint8)


def white_of_largest(largest: float, *, is_floating: bool = False) -> float:
    """The value that becomes 255 in a set whose largest value is `largest`.

    It is the largest of the smallest bit depth that holds it, so that 12 bits in 16 are seen as
    12 bits, and an image a little brighter than those of the set is still within the range; 1 for
    floating-point numbers up to 1.
    """
    if is_floating and largest <= 1:
        return 1.0
    return float(2 ** max(8, int(largest).bit_length()) - 1)
