"""SG-Former, registered with timm.

Source: Ren et al., ICCV 2023 (arXiv 2308.12216). After `import sgformer.model`,
`timm.create_model("sg_former_b0")` and the other names of `sgformer.config.MODEL_NAMES` work.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import DropPath, trunc_normal_
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from sgformer.attention import (
    GlobalAttention,
    HybridScaleAttention,
    MapSize,
    SelfGuidedAttention,
    to_map,
    to_tokens,
)
from sgformer.errors import ConfigError

REDUCTIONS = (8, 4, 2)
STRIDE = 32


def group_norm(dim: int) -> nn.GroupNorm:
    return nn.GroupNorm(1, dim)


class Mlp(nn.Module):
    """fc1, then a depthwise 3x3 convolution beside the identity, GELU, fc2."""

    def __init__(self, dim: int, hidden_dim: int, drop: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.conv = nn.Conv2d(hidden_dim, hidden_dim, 3, padding=1, groups=hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x_BNC: Tensor, size: MapSize) -> Tensor:
        hidden = self.fc1(x_BNC)
        hidden = F.gelu(hidden + to_tokens(self.conv(to_map(hidden, size))))
        return self.drop(self.fc2(self.drop(hidden)))


class Block(nn.Module):
    """Attention and MLP with residuals; passes a significance map on to the block after it."""

    def __init__(
        self, attn: nn.Module, dim: int, mlp_ratio: float, proj_drop: float, drop_path: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = attn
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), proj_drop)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(
        self, x_BNC: Tensor, size: MapSize, significance_BHW: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        normed = self.norm1(x_BNC)
        significance = None
        if isinstance(self.attn, HybridScaleAttention):
            attended, significance = self.attn(normed, size)
        elif isinstance(self.attn, SelfGuidedAttention):
            attended = self.attn(normed, size, significance_BHW)
        else:
            attended = self.attn(normed, size)
        x_BNC = x_BNC + self.drop_path(attended)
        return x_BNC + self.drop_path(self.mlp(self.norm2(x_BNC), size)), significance


class Stage(nn.Module):
    """Blocks at one resolution, after an optional downsampling, before a LayerNorm."""

    def __init__(self, downsample: nn.Module, blocks: Sequence[Block], dim: int) -> None:
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = self.downsample(x_BCHW)
        size = (x_BCHW.shape[2], x_BCHW.shape[3])
        x_BNC, significance = to_tokens(x_BCHW), None
        for block in self.blocks:
            x_BNC, significance = block(x_BNC, size, significance)
        return to_map(self.norm(x_BNC), size)


class SGFormer(nn.Module):
    """SG-Former for images whose sides are multiples of 32.

    Args:
        num_classes: Outputs of the head; 0 for none, then `forward` gives the pooled features.
        in_chans: Channels of the image.
        img_size: Side in pixels, or (height, width), that the position table is made for;
            the model takes other sizes too and resamples the table.
        embed_dims: Channels of the four stages; the first divisible by 4.
        depths: Blocks of the four stages.
        num_heads: Heads of the four stages; even in the first three, dividing their channels.
        mlp_ratios: Hidden over plain channels of the MLPs.
        drop_rate: Dropout before the head.
        proj_drop_rate: Dropout after attention projections and in MLPs.
        attn_drop_rate: Dropout of attention weights.
        drop_path_rate: Stochastic depth of the last block; grows linearly from 0.

    Raises:
        ConfigError: The sizes do not fit one another, or an image is no multiple of 32.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        img_size: int | tuple[int, int] = 224,
        embed_dims: Sequence[int] = (64, 128, 256, 512),
        depths: Sequence[int] = (2, 4, 16, 1),
        num_heads: Sequence[int] = (2, 4, 8, 16),
        mlp_ratios: Sequence[float] = (4, 4, 4, 4),
        drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        check_architecture(embed_dims, depths, num_heads, mlp_ratios)
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        check_image_size(height, width)
        self.num_classes = num_classes
        self.num_features = self.head_hidden_size = embed_dims[-1]
        self.grid = (height // 4, width // 4)
        dim = embed_dims[0]
        self.stem = nn.Sequential(
            nn.Conv2d(in_chans, dim, 3, stride=2, padding=1, bias=False),
            group_norm(dim),
            nn.GELU(),
            nn.Conv2d(dim, dim, 3, padding=1, bias=False),
            group_norm(dim),
            nn.GELU(),
            nn.Conv2d(dim, dim, 3, stride=2, padding=1, bias=False),
            group_norm(dim),
        )
        self.stem_norm = nn.LayerNorm(dim)
        self.pos_embed = nn.Parameter(sine_cosine_table(self.grid, dim))
        last = max(1, sum(depths) - 1)
        drop_paths = iter([drop_path_rate * i / last for i in range(sum(depths))])
        self.stages = nn.ModuleList()
        for i, (dim, depth) in enumerate(zip(embed_dims, depths, strict=True)):
            blocks = []
            for j in range(depth):
                attn = build_attention(i, j, dim, num_heads[i], attn_drop_rate, proj_drop_rate)
                blocks.append(Block(attn, dim, mlp_ratios[i], proj_drop_rate, next(drop_paths)))
            down = build_downsampling(embed_dims[i - 1], dim) if i else nn.Identity()
            self.stages.append(Stage(down, blocks, dim))
        self.head_drop = nn.Dropout(drop_rate)
        self.head = nn.Linear(dim, num_classes) if num_classes > 0 else nn.Identity()
        self.apply(initialise)

    @torch.jit.ignore  # type: ignore[untyped-decorator]
    def no_weight_decay(self) -> set[str]:
        return {"pos_embed"}

    def forward_features(self, x_BCHW: Tensor) -> Tensor:
        """The last stage's map, (B, C, H / 32, W / 32)."""
        check_image_size(x_BCHW.shape[2], x_BCHW.shape[3])
        x_BCHW = self.stem(x_BCHW)
        size = (x_BCHW.shape[2], x_BCHW.shape[3])
        x_BNC = self.stem_norm(to_tokens(x_BCHW)) + self._position_table(size)
        x_BCHW = to_map(x_BNC, size)
        for stage in self.stages:
            x_BCHW = stage(x_BCHW)
        return x_BCHW

    def forward_head(self, x_BCHW: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits, or with `pre_logits` the pooled features."""
        pooled_BC = self.head_drop(x_BCHW.mean((2, 3)))
        return pooled_BC if pre_logits else self.head(pooled_BC)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x_BCHW))

    def _position_table(self, size: MapSize) -> Tensor:
        if size == self.grid:
            return self.pos_embed
        # No antialias: that operator has no ONNX form.
        table = F.interpolate(to_map(self.pos_embed, self.grid), size=size, mode="bicubic")
        return to_tokens(table)


def check_architecture(
    embed_dims: Sequence[int],
    depths: Sequence[int],
    num_heads: Sequence[int],
    mlp_ratios: Sequence[float],
) -> None:
    """Raises ConfigError where the four stages' sizes do not fit one another."""
    for name, values in (
        ("embed_dims", embed_dims),
        ("depths", depths),
        ("num_heads", num_heads),
        ("mlp_ratios", mlp_ratios),
    ):
        if len(values) != 4:
            raise ConfigError(f"{name}: one value for each of the four stages, got {values!r}")
    if embed_dims[0] % 4:
        raise ConfigError(f"embed_dims: the first must be divisible by 4, got {embed_dims[0]}")
    for i, (dim, heads) in enumerate(zip(embed_dims, num_heads, strict=True)):
        if dim % heads:
            raise ConfigError(f"num_heads: {heads} heads do not divide {dim} channels (stage {i})")
        if i < len(REDUCTIONS) and heads % 2:
            raise ConfigError(f"num_heads: must be even in the first three stages, got {heads}")


def check_image_size(height: int, width: int) -> None:
    """Raises ConfigError for sides that are no multiple of 32, naming the nearest ones."""
    for side in (height, width):
        if side < STRIDE or side % STRIDE:
            low = max(STRIDE, side // STRIDE * STRIDE)
            raise ConfigError(
                f"image size {height}x{width}: each side must be a multiple of {STRIDE} pixels; "
                f"nearest to {side}: {low} and {low + STRIDE}"
            )


def build_attention(
    stage: int, index: int, dim: int, num_heads: int, attn_drop: float, proj_drop: float
) -> nn.Module:
    """Hybrid-scale and self-guided attention in turn; global attention in the last stage."""
    if stage == len(REDUCTIONS):
        return GlobalAttention(dim, num_heads, attn_drop, proj_drop)
    kind = SelfGuidedAttention if index % 2 else HybridScaleAttention
    return kind(dim, num_heads, REDUCTIONS[stage], attn_drop, proj_drop)


def build_downsampling(in_dim: int, out_dim: int) -> nn.Sequential:
    """Halves the map: 1x1, depthwise 3x3 with stride 2, 1x1 convolution."""
    return nn.Sequential(
        nn.Conv2d(in_dim, out_dim, 1, bias=False),
        group_norm(out_dim),
        nn.GELU(),
        nn.Conv2d(out_dim, out_dim, 3, stride=2, padding=1, groups=out_dim, bias=False),
        group_norm(out_dim),
        nn.GELU(),
        nn.Conv2d(out_dim, out_dim, 1, bias=False),
        group_norm(out_dim),
    )


def sine_cosine_table(grid: MapSize, dim: int) -> Tensor:
    """(1, N, dim): sines and cosines of the column in the first half, of the row in the second."""
    frequencies = 10000.0 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    halves = []
    for axis in (1, 0):
        angles = torch.arange(grid[axis], dtype=torch.float64)[:, None] * frequencies
        half = torch.cat((angles.sin(), angles.cos()), dim=1)
        halves.append(half[None, :] if axis == 1 else half[:, None])
    table = torch.cat([half.expand(*grid, -1) for half in halves], dim=2)
    return table.flatten(0, 1)[None].float()


def initialise(module: nn.Module) -> None:
    """The paper's initialisation; norms keep torch's own, ones and zeros."""
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
        nn.init.normal_(module.weight, std=math.sqrt(2.0 / (fan_out // module.groups)))
        if module.bias is not None:
            nn.init.zeros_(module.bias)


# name: (embed_dims, depths, num_heads). The paper's S, M and B are b2, b3 and b.
SIZES: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = {
    "sg_former_pico": ((12, 24, 32, 48), (1, 2, 2, 1), (2, 2, 2, 4)),
    "sg_former_nano": ((16, 32, 64, 128), (2, 2, 2, 1), (2, 2, 4, 8)),
    "sg_former_micro": ((24, 48, 96, 192), (2, 2, 4, 1), (2, 4, 4, 8)),
    "sg_former_b0": ((32, 64, 160, 256), (2, 2, 8, 2), (2, 2, 4, 8)),
    "sg_former_b1": ((48, 96, 192, 384), (2, 4, 16, 1), (2, 4, 6, 12)),
    "sg_former_b2": ((64, 128, 256, 512), (2, 4, 16, 1), (2, 4, 8, 16)),
    "sg_former_b3": ((64, 128, 256, 512), (2, 6, 28, 2), (2, 4, 8, 16)),
    "sg_former_b4": ((80, 160, 320, 640), (2, 6, 28, 2), (2, 4, 10, 20)),
    "sg_former_b5": ((96, 192, 384, 768), (4, 6, 30, 1), (4, 6, 12, 24)),
    "sg_former_s": ((64, 128, 256, 512), (2, 4, 16, 1), (2, 4, 8, 16)),
    "sg_former_m": ((64, 128, 256, 512), (2, 6, 28, 2), (2, 4, 8, 16)),
    "sg_former_b": ((96, 192, 384, 768), (4, 6, 24, 2), (4, 6, 12, 24)),
}


def _create(name: str, pretrained: bool, **kwargs: Any) -> SGFormer:
    if pretrained:
        raise ConfigError(
            f"{name}: no pretrained weights are hosted; build it with pretrained=False and load "
            "a state dict of your own"
        )
    embed_dims, depths, num_heads = SIZES[name]
    sizes = {"embed_dims": embed_dims, "depths": depths, "num_heads": num_heads}
    model: SGFormer = build_model_with_cfg(SGFormer, name, pretrained=False, **(sizes | kwargs))
    return model


default_cfgs = generate_default_cfgs(
    {
        f"{name}.untrained": {
            "url": "",
            "num_classes": 1000,
            "input_size": (3, 224, 224),
            "min_input_size": (3, STRIDE, STRIDE),
            "pool_size": (7, 7),
            "crop_pct": 0.875,
            "interpolation": "bicubic",
            "mean": IMAGENET_DEFAULT_MEAN,
            "std": IMAGENET_DEFAULT_STD,
            "first_conv": "stem.0",
            "classifier": "head",
        }
        for name in SIZES
    }
)


@register_model
def sg_former_pico(pretrained: bool = False, **kwargs: Any) -> SGFormer:
    return _create("sg_former_pico", pretrained, **kwargs)


@register_model
def sg_former_nano(pretrained: bool = False, **kwargs: Any) -> SGFormer:
    return _create("sg_former_nano", pretrained, **kwargs)


@register_model
def sg_former_micro(pretrained: bool = False, **kwargs: Any) -> SGFormer:
    return _create("sg_former_micro", pretrained, **kwargs)


@register_model
def sg_former_b0(pretrained: bool = False, **kwargs: Any) -> SGFormer:
    return _create("sg_former_b0", pretrained, **kwargs)


@register_model
def sg_former_b1(pretrained: bool = False, **kwargs: Any) -> SGFormer:
    return _create("sg_former_b1", pretrained, **kwargs)


@register_model
def sg_former_b2(pretrained: bool = False, **kwargs: Any) -> SGFormer:
    return _create("sg_former_b2", pretrained, **kwargs)


@register_model
def sg_former_b3(pretrained: bool = False, **kwargs: Any) -> SGFormer:
    return _create("sg_former_b3", pretrained, **kwargs)


@register_model
def sg_former_b4(pretrained: bool = False, **kwargs: Any) -> SGFormer:
    return _create("sg_former_b4", pretrained, **kwargs)


@register_model
def sg_former_b5(pretrained: bool = False, **kwargs: Any) -> SGFormer:
    return _create("sg_former_b5", pretrained, **kwargs)


@register_model
def sg_former_s(pretrained: bool = False, **kwargs: Any) -> SGFormer:
    return _create("sg_former_s", pretrained, **kwargs)


@register_model
def sg_former_m(pretrained: bool = False, **kwargs: Any) -> SGFormer:
    return _create("sg_former_m", pretrained, **kwargs)


@register_model
def sg_former_b(pretrained: bool = False, **kwargs: Any) -> SGFormer:
    return _create("sg_former_b", pretrained, **kwargs)
