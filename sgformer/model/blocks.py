"""The parts of SG-Former: stem, downsampling, blocks and stages.

Shapes in names are those of `sgformer.model.attention`.
"""

import math
from collections.abc import Sequence
from typing import Any, Final

import torch.nn.functional as F
from timm.layers import DropPath, trunc_normal_
from timm.models import checkpoint
from torch import Tensor, nn

from sgformer.model.attention import (
    GlobalAttention,
    HybridScaleAttention,
    MapSize,
    SelfGuidedAttention,
    to_map,
    to_tokens,
)

# The token reductions of the first three stages; the fourth stage attends to all tokens.
REDUCTIONS: Final = (8, 4, 2)


class Mlp(nn.Module):
    """fc2(GELU(h + conv(h))) with h = fc1(x); conv is a depthwise 3x3 convolution of the map."""

    def __init__(self, dim: int, hidden_dim: int, drop: float, **factory: Any) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim, **factory)
        self.conv = nn.Conv2d(hidden_dim, hidden_dim, 3, padding=1, groups=hidden_dim, **factory)
        self.fc2 = nn.Linear(hidden_dim, dim, **factory)
        self.drop = nn.Dropout(drop)

    def forward(self, x_BNC: Tensor, size: MapSize) -> Tensor:
        hidden = self.fc1(x_BNC)
        hidden = F.gelu(hidden + to_tokens(self.conv(to_map(hidden, size))))
        return self.drop(self.fc2(self.drop(hidden)))


class Block(nn.Module):
    """Attention, then an MLP, each after a LayerNorm and with a residual connection.

    A block receives the previous block's significance map and returns its own (None if its
    attention computes no significance).
    """

    def __init__(
        self,
        attn: nn.Module,
        dim: int,
        mlp_ratio: float,
        proj_drop: float,
        drop_path: float,
        **factory: Any,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6, **factory)
        self.attn = attn
        self.norm2 = nn.LayerNorm(dim, eps=1e-6, **factory)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), proj_drop, **factory)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(
        self, x_BNC: Tensor, size: MapSize, significance_BHW: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        attended, significance = self.attn(self.norm1(x_BNC), size, significance_BHW)
        x_BNC = x_BNC + self.drop_path(attended)
        return x_BNC + self.drop_path(self.mlp(self.norm2(x_BNC), size)), significance


class Stage(nn.Module):
    """Blocks that share one map size: a downsampling (or identity), blocks, a LayerNorm."""

    def __init__(
        self, downsample: nn.Module, blocks: Sequence[Block], dim: int, **factory: Any
    ) -> None:
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(dim, eps=1e-6, **factory)
        self.grad_checkpointing = False

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = self.downsample(x_BCHW)
        size = (x_BCHW.shape[2], x_BCHW.shape[3])
        x_BNC, significance = to_tokens(x_BCHW), None
        for block in self.blocks:
            if self.grad_checkpointing and self.training:
                x_BNC, significance = checkpoint(block, x_BNC, size, significance)
            else:
                x_BNC, significance = block(x_BNC, size, significance)
        return to_map(self.norm(x_BNC), size)


def build_block(
    stage: int,
    index: int,
    dim: int,
    num_heads: int,
    mlp_ratio: float,
    attn_drop: float,
    proj_drop: float,
    drop_path: float,
    **factory: Any,
) -> Block:
    """Block `index` of stage `stage`; both numbers count from 0."""
    attn = _build_attention(stage, index, dim, num_heads, attn_drop, proj_drop, **factory)
    return Block(attn, dim, mlp_ratio, proj_drop, drop_path, **factory)


def _build_attention(
    stage: int,
    index: int,
    dim: int,
    num_heads: int,
    attn_drop: float,
    proj_drop: float,
    **factory: Any,
) -> nn.Module:
    """The attention of a block; blocks of the last stage have global attention.

    In the other stages, even blocks have hybrid-scale attention. Odd blocks have self-guided
    attention, which reads the previous block's significance map.
    """
    if stage == len(REDUCTIONS):
        return GlobalAttention(dim, num_heads, attn_drop, proj_drop, **factory)
    kind = SelfGuidedAttention if index % 2 else HybridScaleAttention
    return kind(dim, num_heads, REDUCTIONS[stage], attn_drop, proj_drop, **factory)


def build_stem(in_chans: int, dim: int, **factory: Any) -> nn.Sequential:
    """Three 3x3 convolutions, (B, in_chans, H, W) to (B, dim, H / 4, W / 4)."""
    return nn.Sequential(
        nn.Conv2d(in_chans, dim, 3, stride=2, padding=1, bias=False, **factory),
        _group_norm(dim, **factory),
        nn.GELU(),
        nn.Conv2d(dim, dim, 3, padding=1, bias=False, **factory),
        _group_norm(dim, **factory),
        nn.GELU(),
        nn.Conv2d(dim, dim, 3, stride=2, padding=1, bias=False, **factory),
        _group_norm(dim, **factory),
    )


def build_downsampling(in_dim: int, dim: int, **factory: Any) -> nn.Sequential:
    """1x1, depthwise 3x3 (stride 2) and 1x1 convolutions, to (B, dim, H / 2, W / 2)."""
    return nn.Sequential(
        nn.Conv2d(in_dim, dim, 1, bias=False, **factory),
        _group_norm(dim, **factory),
        nn.GELU(),
        nn.Conv2d(dim, dim, 3, stride=2, padding=1, groups=dim, bias=False, **factory),
        _group_norm(dim, **factory),
        nn.GELU(),
        nn.Conv2d(dim, dim, 1, bias=False, **factory),
        _group_norm(dim, **factory),
    )


def initialise(module: nn.Module) -> None:
    """Initialises a linear layer or convolution as the paper does.

    LayerNorm and GroupNorm keep torch's initialisation: weights 1, biases 0.
    """
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
        nn.init.normal_(module.weight, std=math.sqrt(2.0 / (fan_out // module.groups)))
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _group_norm(dim: int, **factory: Any) -> nn.GroupNorm:
    """GroupNorm with one group, which normalises over all channels and positions of an image."""
    return nn.GroupNorm(1, dim, **factory)
