"""Random erasing: a patch of a training image is replaced by noise.

The loading processes choose the patches, as timm's RandomErasing does in its mode `pixel`; the
device of the training fills them, after it has normalised the images.
"""

import math
import random
from typing import Final

import torch

# Source: timm's RandomErasing, which follows Zhong et al. 2017, section 3.3.
AREAS: Final = (0.02, 1 / 3)  # share of the image's area
ASPECT_RATIO: Final = 0.3  # of height to width, up to its inverse
NUM_TRIES: Final = 10

# Top, left, height and width in pixels, and the seed of the noise; a height of 0: no patch.
Patch = tuple[int, int, int, int, int]
NO_PATCH: Final[Patch] = (0, 0, 0, 0, 0)


def draw_patch(probability: float, height: int, width: int) -> Patch:
    """The patch of an image, or `NO_PATCH`; draws from Python's global generator."""
    if random.random() >= probability:
        return NO_PATCH
    limit = math.log(ASPECT_RATIO)
    for _ in range(NUM_TRIES):
        area = random.uniform(*AREAS) * height * width
        ratio = math.exp(random.uniform(limit, -limit))
        h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if h < height and w < width:
            top, left = random.randint(0, height - h), random.randint(0, width - w)
            return (top, left, h, w, random.getrandbits(62))
    return NO_PATCH


def erase(images: torch.Tensor, patches: torch.Tensor) -> None:
    """Fills each image's patch with standard normal noise, in place.

    The noise depends on nothing but the patch's seed and the kind of device.

    Args:
        images: Normalised images, (B, C, H, W).
        patches: The images' patches, (B, 5) integers on the CPU.
    """
    generator = torch.Generator(images.device)
    for i, (top, left, height, width, seed) in enumerate(patches.tolist()):
        if height:
            generator.manual_seed(seed)
            noise = torch.randn(
                (images.shape[1], height, width), generator=generator, device=images.device
            )
            images[i, :, top : top + height, left : left + width] = noise
