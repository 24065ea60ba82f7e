"""The SG-Former classifier.

Source: Ren et al., "SG-Former: Self-guided Transformer with Evolving Token Reallocation",
ICCV 2023 (arXiv 2308.12216).

Shapes in names: B images, C channels, H and W a map's height and width, N = H * W tokens.
"""

from collections.abc import Sequence
from typing import Any

import torch
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from sgformer.errors import ConfigError
from sgformer.model.attention import to_map, to_tokens
from sgformer.model.blocks import (
    REDUCTIONS,
    Stage,
    build_block,
    build_downsampling,
    build_stem,
    initialise,
)
from sgformer.model.positions import (
    check_image_size,
    fitted_table,
    resampled_table,
    sine_cosine_table,
)


class SGFormer(nn.Module):
    """SG-Former for images whose sides are multiples of 32 pixels, with timm's model interface.

    Args:
        num_classes: Number of logits; with 0 the model has no head, and `forward` returns the
            pooled features.
        in_chans: Channels of the images.
        img_size: Image side in pixels, or (height, width), for which the position table is made.
            For images of other sizes the model resamples the table.
        global_pool: 'avg', 'max', or '' for no pooling, so that features and logits are maps.
        embed_dims: Channels of each of the four stages; the first must be divisible by 4.
        depths: Number of blocks of each stage.
        num_heads: Attention heads of each stage. They must divide the stage's channels, and be
            even in the first three stages.
        mlp_ratios: Hidden channels of each stage's MLPs, as a multiple of the stage's channels.
        drop_rate: Dropout probability before the head.
        proj_drop_rate: Dropout probability after attention projections and in MLPs.
        attn_drop_rate: Dropout probability of attention weights.
        drop_path_rate: Probability that the last block is skipped (stochastic depth); the
            probability grows linearly over the blocks, from 0 for the first.
        device: Device of the parameters.
        dtype: Type of the parameters.

    Raises:
        ConfigError: See `check_architecture` and `checked_pool`; or a side of `img_size` is not a
            multiple of 32.
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
            sizes = (dim, num_heads[i], mlp_ratios[i], attn_drop_rate, proj_drop_rate)
            blocks = [build_block(i, j, *sizes, next(drop_paths), **factory) for j in range(depth)]
            down = build_downsampling(embed_dims[i - 1], dim, **factory) if i else nn.Identity()
            self._add_stage(Stage(down, blocks, dim, **factory), dim)
        self.num_features = self.head_hidden_size = embed_dims[-1]
        self.head_drop = nn.Dropout(drop_rate)
        self.head: nn.Module = nn.Identity()
        self.global_pool = checked_pool(global_pool)
        self.num_classes = num_classes
        if num_classes > 0:
            self.head = nn.Linear(self.num_features, num_classes, **factory)
        self.apply(initialise)
        self.register_load_state_dict_pre_hook(_resample_loaded_table)  # type: ignore[no-untyped-call]

    @torch.jit.ignore  # type: ignore[untyped-decorator]
    def no_weight_decay(self) -> set[str]:
        """The parameters without weight decay: the position table, norms and biases."""
        return {n for n, p in self.named_parameters() if p.ndim <= 1 or n == "pos_embed"}

    @torch.jit.ignore  # type: ignore[untyped-decorator]
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns by which timm groups parameters into layers.

        The stem is the first layer; after it, each block is a layer, or with `coarse` each stage.
        """
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
        """Trades time for memory: the backward pass recomputes each block's activations."""
        for stage in self.stages:
            assert isinstance(stage, Stage)
            stage.grad_checkpointing = enable

    @torch.jit.ignore  # type: ignore[untyped-decorator]
    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replaces the head by a new one; with `global_pool` None the pooling stays."""
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
        """The last stage's map, (B, C, H / 32, W / 32) for images of H x W pixels."""
        x_BCHW = self._embed(x_BCHW)
        for stage in self.stages:
            x_BCHW = stage(x_BCHW)
        return x_BCHW

    def forward_head(self, x_BCHW: Tensor, pre_logits: bool = False) -> Tensor:
        """The logits, (B, classes).

        With `pre_logits`, or without a head, returns the pooled features, (B, C). With
        `global_pool` '', returns logits or features as a map, (B, classes or C, H, W).
        """
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
        """The final map, as `forward_features` returns it, and the maps of chosen stages.

        Args:
            x: Images, (B, C, H, W).
            indices: The chosen stages; a number n means the last n stages, None all.
            norm: Has no effect: every stage ends with a norm of its own.
            stop_early: Compute no stage after the last chosen one.
            output_fmt: Must be 'NCHW'.
            intermediates_only: Return only the list of maps.

        Raises:
            ConfigError: `output_fmt` is not 'NCHW', or a side of the images is not a multiple of
                32.
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
        """Removes the stages after the last index, and the head; returns the stages' indices."""
        taken, max_index = feature_take_indices(len(self.stages), indices)
        self.stages = self.stages[: max_index + 1]
        self.feature_info = self.feature_info[: max_index + 1]
        self.num_features = self.head_hidden_size = self.feature_info[-1]["num_chs"]
        if prune_head:
            self.reset_classifier(0, "")
        return list(taken)

    def _add_stage(self, stage: Stage, dim: int) -> None:
        """Appends a stage, and its entry in `feature_info` for timm's feature extraction."""
        i = len(self.stages)
        self.stages.append(stage)
        self.feature_info.append({"num_chs": dim, "reduction": 4 * 2**i, "module": f"stages.{i}"})

    def _embed(self, x_BCHW: Tensor) -> Tensor:
        """The stem's map with the position table added, (B, C, H / 4, W / 4)."""
        check_image_size(x_BCHW.shape[2], x_BCHW.shape[3])
        x_BCHW = self.stem(x_BCHW)
        size = (x_BCHW.shape[2], x_BCHW.shape[3])
        table = resampled_table(self.pos_embed, self.grid, size)
        return to_map(self.stem_norm(to_tokens(x_BCHW)) + table, size)


def checked_pool(global_pool: str) -> str:
    """Returns `global_pool` unchanged.

    Raises:
        ConfigError: `global_pool` is not 'avg', 'max' or ''.
    """
    if global_pool not in {"avg", "max", ""}:
        raise ConfigError(f"global_pool: must be 'avg', 'max' or '', got {global_pool!r}")
    return global_pool


def check_architecture(
    embed_dims: Sequence[int],
    depths: Sequence[int],
    num_heads: Sequence[int],
    mlp_ratios: Sequence[float],
) -> None:
    """Checks the sizes of the four stages.

    Raises:
        ConfigError: An argument has not four values, heads do not divide channels, the number of
            heads is odd in one of the first three stages, or 4 does not divide embed_dims[0].
    """
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


def _resample_loaded_table(
    model: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: Any
) -> None:
    """Resamples the position table of weights that are loaded into a model of another size."""
    assert isinstance(model, SGFormer)
    name = f"{prefix}pos_embed"
    if name in state_dict:
        state_dict[name] = fitted_table(state_dict[name], model.pos_embed.shape, model.grid)
