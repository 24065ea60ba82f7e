"""The position table, its resampling to other image sizes, and the check of image sizes."""

import math

import torch
import torch.nn.functional as F
from timm.models import register_notrace_function
from torch import Tensor

from sgformer.catalog import STRIDE
from sgformer.errors import ConfigError
from sgformer.model.attention import MapSize, to_map, to_tokens


def sine_cosine_table(grid: MapSize, dim: int) -> Tensor:
    """The initial position table, (1, H * W, dim) for a grid of H rows and W columns.

    The first half of the channels holds sines and cosines of the column, the second half those
    of the row.
    """
    frequencies = 10000.0 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    halves = []
    for axis in (1, 0):
        angles = torch.arange(grid[axis], dtype=torch.float64)[:, None] * frequencies
        half = torch.cat((angles.sin(), angles.cos()), dim=1)
        halves.append(half[None, :] if axis == 1 else half[:, None])
    table = torch.cat([half.expand(*grid, -1) for half in halves], dim=2)
    return table.flatten(0, 1)[None].float()


def resampled_table(table_BNC: Tensor, grid: MapSize, size: MapSize) -> Tensor:
    """The (1, N, C) position table of `grid`, interpolated (bicubic) for a map of `size`."""
    if tuple(size) == tuple(grid):
        return table_BNC
    # No antialias: ONNX has no such operator. In float32: a CPU has no bicubic in half precision.
    table = F.interpolate(to_map(table_BNC, grid).float(), size=size, mode="bicubic")
    return to_tokens(table).to(table_BNC.dtype)


def fitted_table(table_BNC: Tensor, shape: torch.Size, grid: MapSize) -> Tensor:
    """A loaded (1, N, C) position table, resampled to `grid` if it has another size.

    Only tables of square maps are resampled. Any other table of a wrong shape is returned
    unchanged, and `load_state_dict` refuses it.
    """
    side = math.isqrt(table_BNC.shape[1])
    is_square = side * side == table_BNC.shape[1]
    if table_BNC.shape == shape or not is_square or table_BNC.shape[2] != shape[2]:
        return table_BNC
    return resampled_table(table_BNC, (side, side), grid)


def check_image_size(height: int, width: int) -> None:
    """Checks that both sides are multiples of 32 pixels.

    Raises:
        ConfigError: A side is not a multiple; the message names the nearest allowed sides.
    """
    for side in (height, width):
        if side < STRIDE or side % STRIDE:
            low = max(STRIDE, side // STRIDE * STRIDE)
            raise ConfigError(
                f"image size {height}x{width}: each side must be a multiple of {STRIDE} pixels; "
                f"nearest to {side}: {low} and {low + STRIDE}"
            )


# Both functions branch on sizes, so torch.fx has to call them instead of tracing into them.
register_notrace_function(resampled_table)
register_notrace_function(check_image_size)
