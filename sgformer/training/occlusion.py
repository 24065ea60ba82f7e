"""Saliency by occlusion: on which parts of an image the probability of a class rests.

Source: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, 4.2.
"""

from collections.abc import Callable
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
import torch

from sgformer.images.decoding import RgbImage

# Images (N, 3, H, W) uint8, as evaluation crops them, to probabilities (N, classes).
Classify = Callable[[torch.Tensor], torch.Tensor]
HeatMap = npt.NDArray[np.float64]  # (CELLS, CELLS)

CELLS: Final = 8  # the grid that a map has; a patch covers 2 x 2 of its cells
GREY: Final = 128
FAINT_DROP: Final = 0.1  # a largest drop below this one does not get the strongest colour
MOST_OPAQUE: Final = 0.7


def occlusion_map(classify: Classify, image: torch.Tensor, label: int) -> HeatMap:
    """How far the probability of a class drops where a grey patch covers the image.

    Args:
        classify: Gives the probabilities of the classes.
        image: The image, (3, H, W) uint8.
        label: The class.

    Returns:
        For each cell of a grid the mean drop under the patches that cover it, -1..1.
    """
    height, width = image.shape[1:]
    places = [(row, column) for row in range(CELLS - 1) for column in range(CELLS - 1)]
    covered = image.repeat(1 + len(places), 1, 1, 1)  # the first image stays as it is
    for one, (row, column) in zip(covered[1:], places, strict=True):
        rows = slice(row * height // CELLS, (row + 2) * height // CELLS)
        columns = slice(column * width // CELLS, (column + 2) * width // CELLS)
        one[:, rows, columns] = GREY
    probabilities = classify(covered)[:, label].cpu().double().numpy()
    drops, num_patches = np.zeros((CELLS, CELLS)), np.zeros((CELLS, CELLS))
    for drop, (row, column) in zip(probabilities[0] - probabilities[1:], places, strict=True):
        drops[row : row + 2, column : column + 2] += drop
        num_patches[row : row + 2, column : column + 2] += 1
    return np.asarray(drops / num_patches)


def with_heat(image: RgbImage, heat: HeatMap) -> RgbImage:
    """The image (H, W, 3), coloured where `occlusion_map` found the probability to drop."""
    shares = heat.clip(0) / max(heat.max(), FAINT_DROP)
    height, width = image.shape[:2]
    smooth = cv2.resize(shares, (width, height), interpolation=cv2.INTER_LINEAR)
    colours = cv2.applyColorMap((255 * smooth).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    weights = MOST_OPAQUE * smooth[..., None]
    return np.asarray(image * (1 - weights) + colours * weights, dtype=np.uint8)
