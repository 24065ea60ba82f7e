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
from timm.models import (
    build_model_with_cfg,
    checkpoint,
    generate_default_cfgs,
    register_model,
    register_notrace_function,
)
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from sgformer.errors import ConfigError
from sgformer.model.attention import (
    GlobalAttention,
    HybridScaleAttention,
    MapSize,
    SelfGuidedAttention,
    to_map,
    to_tokens,
)
from sgformer.model.official import convert_state_dict, is_released

REDUCTIONS = (8, 4, 2)
STRIDE = 32


def group_norm(dim: int, **factory: Any) -> nn.GroupNorm:
    return nn.GroupNorm(1, dim, **factory)


class Mlp(nn.Module):
    """fc1, then a depthwise 3x3 convolution beside the identity, GELU, fc2."""

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
    """Attention and MLP with residuals; passes a significance map on to the block after it."""

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


class SGFormer(nn.Module):
    """SG-Former for images whose sides are multiples of 32; a timm model in every respect.

    Args:
        num_classes: Outputs of the head; 0 for none, then `forward` gives the pooled features.
        in_chans: Channels of the image.
        img_size: Side in pixels, or (height, width), that the position table is made for;
            the model takes other sizes too and resamples the table.
        global_pool: 'avg', 'max', or '' for none, then features and logits are maps.
        embed_dims: Channels of the four stages; the first divisible by 4.
        depths: Blocks of the four stages.
        num_heads: Heads of the four stages; even in the first three, dividing their channels.
        mlp_ratios: Hidden over plain channels of the MLPs.
        drop_rate: Dropout before the head.
        proj_drop_rate: Dropout after attention projections and in MLPs.
        attn_drop_rate: Dropout of attention weights.
        drop_path_rate: Stochastic depth of the last block; grows linearly from 0.
        device: Where the parameters are made.
        dtype: What they are made of.

    Raises:
        ConfigError: The sizes do not fit one another, or an image is no multiple of 32.
    """

    output_fmt = "NCHW"

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        img_size: int | tuple[int, int] = 224,
        global_pool: str = "avg",
        embed_dims: Sequence[int] = (64, 128, 256, 512),
        depths: Sequence[int] = (2, 4, 16, 1),
        num_heads: Sequence[int] = (2, 4, 8, 16),
        mlp_ratios: Sequence[float] = (4, 4, 4, 4),
        drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_architecture(embed_dims, depths, num_heads, mlp_ratios)
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        check_image_size(height, width)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.in_chans = in_chans
        self.grid = (height // 4, width // 4)
        dim = embed_dims[0]
        self.stem = build_stem(in_chans, dim, **factory)
        self.stem_norm = nn.LayerNorm(dim, **factory)
        self.pos_embed = nn.Parameter(sine_cosine_table(self.grid, dim).to(device, dtype))
        self.stages = nn.ModuleList()
        self.feature_info: list[dict[str, Any]] = []
        last = max(1, sum(depths) - 1)
        drop_paths = iter([drop_path_rate * i / last for i in range(sum(depths))])
        for i, (dim, depth) in enumerate(zip(embed_dims, depths, strict=True)):
            blocks = []
            for j in range(depth):
                attn = build_attention(
                    i, j, dim, num_heads[i], attn_drop_rate, proj_drop_rate, **factory
                )
                blocks.append(
                    Block(attn, dim, mlp_ratios[i], proj_drop_rate, next(drop_paths), **factory)
                )
            down = build_downsampling(embed_dims[i - 1], dim, **factory) if i else nn.Identity()
            self.stages.append(Stage(down, blocks, dim, **factory))
            self.feature_info.append(
                {"num_chs": dim, "reduction": 4 * 2**i, "module": f"stages.{i}"}
            )
        self.num_features = self.head_hidden_size = dim
        self.head_drop = nn.Dropout(drop_rate)
        self.head: nn.Module = nn.Identity()
        self.global_pool = checked_pool(global_pool)
        self.num_classes = num_classes
        if num_classes > 0:
            self.head = nn.Linear(dim, num_classes, **factory)
        self.apply(initialise)
        self.register_load_state_dict_pre_hook(_resample_loaded_table)  # type: ignore[no-untyped-call]

    @torch.jit.ignore  # type: ignore[untyped-decorator]
    def no_weight_decay(self) -> set[str]:
        """The position table, norms and biases."""
        return {n for n, p in self.named_parameters() if p.ndim <= 1 or n == "pos_embed"}

    @torch.jit.ignore  # type: ignore[untyped-decorator]
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """The groups of timm's layer decay: stem, then stages, or each of their blocks."""
        blocks: Any = r"^stages\.(\d+)"
        if not coarse:
            blocks = [
                (r"^stages\.(\d+)\.downsample", (0,)),
                (r"^stages\.(\d+)\.blocks\.(\d+)", None),
                (r"^stages\.(\d+)\.norm", (99999,)),
            ]
        return {"stem": r"^stem|^pos_embed", "blocks": blocks}

    @torch.jit.ignore  # type: ignore[untyped-decorator]
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trades time for memory: blocks are computed again on the way back."""
        for stage in self.stages:
            assert isinstance(stage, Stage)
            stage.grad_checkpointing = enable

    @torch.jit.ignore  # type: ignore[untyped-decorator]
    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new head; keeps the pooling unless another is given."""
        if global_pool is not None:
            self.global_pool = checked_pool(global_pool)
        self.num_classes = num_classes
        self.head = nn.Identity()
        if num_classes > 0:
            like = self.pos_embed
            self.head = nn.Linear(
                self.num_features, num_classes, device=like.device, dtype=like.dtype
            )
            initialise(self.head)
        self.head.train(self.training)

    def forward_features(self, x_BCHW: Tensor) -> Tensor:
        """The last stage's map, (B, C, H / 32, W / 32)."""
        x_BCHW = self._embed(x_BCHW)
        for stage in self.stages:
            x_BCHW = stage(x_BCHW)
        return x_BCHW

    def forward_head(self, x_BCHW: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits; with `pre_logits` or no head the pooled features; maps without pooling."""
        if self.global_pool == "":
            x_BHWC = self.head_drop(x_BCHW).permute(0, 2, 3, 1)
            return (x_BHWC if pre_logits else self.head(x_BHWC)).permute(0, 3, 1, 2)
        pooled = x_BCHW.mean((2, 3)) if self.global_pool == "avg" else x_BCHW.amax((2, 3))
        pooled = self.head_drop(pooled)
        return pooled if pre_logits else self.head(pooled)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x_BCHW))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The maps of stages, and the last one as `forward_features` gives it.

        Args:
            x: Images, (B, C, H, W).
            indices: Which stages; a number means that many last ones, None all.
            norm: Of no effect: every stage ends with its own norm.
            stop_early: Compute no further than the last index.
            output_fmt: 'NCHW' only.
            intermediates_only: Leave the last map out.
        """
        if output_fmt != "NCHW":
            raise ConfigError(f"output_fmt: must be 'NCHW', got {output_fmt!r}")
        taken, max_index = feature_take_indices(len(self.stages), indices)
        stages = self.stages[: max_index + 1] if stop_early else self.stages
        intermediates = []
        x = self._embed(x)
        for i, stage in enumerate(stages):
            x = stage(x)
            if i in taken:
                intermediates.append(x)
        return intermediates if intermediates_only else (x, intermediates)

    def prune_intermediate_layers(
        self,
        indices: int | list[int] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Drops the stages behind the last index, and the head; gives back the indices."""
        taken, max_index = feature_take_indices(len(self.stages), indices)
        self.stages = self.stages[: max_index + 1]
        self.feature_info = self.feature_info[: max_index + 1]
        self.num_features = self.head_hidden_size = self.feature_info[-1]["num_chs"]
        if prune_head:
            self.reset_classifier(0, "")
        return list(taken)

    def _embed(self, x_BCHW: Tensor) -> Tensor:
        """Stem, norm and position table: a map at a quarter of the size."""
        check_image_size(x_BCHW.shape[2], x_BCHW.shape[3])
        x_BCHW = self.stem(x_BCHW)
        size = (x_BCHW.shape[2], x_BCHW.shape[3])
        table = resampled_table(self.pos_embed, self.grid, size)
        return to_map(self.stem_norm(to_tokens(x_BCHW)) + table, size)


def checked_pool(global_pool: str) -> str:
    """The pooling; raises ConfigError for one that there is not."""
    if global_pool not in {"avg", "max", ""}:
        raise ConfigError(f"global_pool: must be 'avg', 'max' or '', got {global_pool!r}")
    return global_pool


def resampled_table(table_BNC: Tensor, grid: MapSize, size: MapSize) -> Tensor:
    """The position table for a map of another size, bicubic."""
    if tuple(size) == tuple(grid):
        return table_BNC
    # No antialias: that operator has no ONNX form. Half precision has no bicubic on a CPU.
    table = F.interpolate(to_map(table_BNC, grid).float(), size=size, mode="bicubic")
    return to_tokens(table).to(table_BNC.dtype)


def _resample_loaded_table(
    model: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: Any
) -> None:
    """Lets weights move between input sizes: a square table of another size is resampled."""
    assert isinstance(model, SGFormer)
    table = state_dict.get(f"{prefix}pos_embed")
    if table is None or table.shape == model.pos_embed.shape:
        return
    side = math.isqrt(table.shape[1])
    if side * side == table.shape[1] and table.shape[2] == model.pos_embed.shape[2]:
        state_dict[f"{prefix}pos_embed"] = resampled_table(table, (side, side), model.grid)


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


# Their branches depend on sizes: torch.fx takes them as they are.
register_notrace_function(resampled_table)
register_notrace_function(check_image_size)


def build_attention(
    stage: int,
    index: int,
    dim: int,
    num_heads: int,
    attn_drop: float,
    proj_drop: float,
    **factory: Any,
) -> nn.Module:
    """Hybrid-scale and self-guided attention in turn; global attention in the last stage."""
    if stage == len(REDUCTIONS):
        return GlobalAttention(dim, num_heads, attn_drop, proj_drop, **factory)
    kind = SelfGuidedAttention if index % 2 else HybridScaleAttention
    return kind(dim, num_heads, REDUCTIONS[stage], attn_drop, proj_drop, **factory)


def build_stem(in_chans: int, dim: int, **factory: Any) -> nn.Sequential:
    """Quarters the image: three 3x3 convolutions, the first and the last with stride 2."""
    return nn.Sequential(
        nn.Conv2d(in_chans, dim, 3, stride=2, padding=1, bias=False, **factory),
        group_norm(dim, **factory),
        nn.GELU(),
        nn.Conv2d(dim, dim, 3, padding=1, bias=False, **factory),
        group_norm(dim, **factory),
        nn.GELU(),
        nn.Conv2d(dim, dim, 3, stride=2, padding=1, bias=False, **factory),
        group_norm(dim, **factory),
    )


def build_downsampling(in_dim: int, dim: int, **factory: Any) -> nn.Sequential:
    """Halves the map: 1x1, depthwise 3x3 with stride 2, 1x1 convolution."""
    return nn.Sequential(
        nn.Conv2d(in_dim, dim, 1, bias=False, **factory),
        group_norm(dim, **factory),
        nn.GELU(),
        nn.Conv2d(dim, dim, 3, stride=2, padding=1, groups=dim, bias=False, **factory),
        group_norm(dim, **factory),
        nn.GELU(),
        nn.Conv2d(dim, dim, 1, bias=False, **factory),
        group_norm(dim, **factory),
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


def checkpoint_filter_fn(state_dict: dict[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """For timm's loaders: weights of ours as they are, released ones converted."""
    return convert_state_dict(state_dict) if is_released(state_dict) else state_dict


def _create(name: str, pretrained: bool, **kwargs: Any) -> SGFormer:
    config, overlay = kwargs.get("pretrained_cfg"), kwargs.get("pretrained_cfg_overlay") or {}
    sources = ("url", "file", "hf_hub_id", "state_dict")
    if pretrained and not any(overlay.get(s) or getattr(config, s, None) for s in sources):
        raise ConfigError(
            f"{name}: no pretrained weights are hosted. Get released ones from the authors "
            "(OliverRensu/SG-Former on GitHub) and name the file: timm.create_model(NAME, "
            "pretrained=True, pretrained_cfg_overlay={'file': PATH}); or build it with "
            "pretrained=False"
        )
    embed_dims, depths, num_heads = SIZES[name]
    sizes = {"embed_dims": embed_dims, "depths": depths, "num_heads": num_heads}
    model: SGFormer = build_model_with_cfg(
        SGFormer,
        name,
        pretrained=pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={"out_indices": (0, 1, 2, 3), "feature_cls": "getter"},
        **(sizes | kwargs),
    )
    return model


default_cfgs = generate_default_cfgs(
    {
        name: {
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
