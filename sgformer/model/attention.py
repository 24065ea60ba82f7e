"""Hybrid-scale, self-guided and global attention of SG-Former.

Each attention takes the tokens, the map's size and the previous block's significance map. It
returns the attended tokens and its own significance map (None if it computes no significance).

Source: Ren et al., "SG-Former: Self-guided Transformer with Evolving Token Reallocation",
ICCV 2023, section 3.

Shapes in names: B images, C channels, H and W the map's height and width, N = H * W tokens,
h heads, d = C / h channels of a head, M tokens after reduction (of an h x w map), G windows of
T tokens each.
"""

import math
from typing import Any, Final

import torch
import torch.nn.functional as F
from timm.models import register_notrace_function, register_notrace_module
from torch import Tensor, nn

MapSize = tuple[int, int]
WINDOW: Final = 7
# Self-guided attention by the stage's reduction. TOKEN_SHARES: the parts into which the tokens,
# sorted by ascending significance, are cut, as fractions of N. RUN_SIZES: how many consecutive
# tokens of each part are merged into one.
# Source: the paper's released models.
TOKEN_SHARES: Final = {8: (0.25, 0.5, 0.25), 4: (0.25, 0.5, 0.25), 2: (0.5, 0.5)}
RUN_SIZES: Final = {8: (196, 56, 28), 4: (49, 14, 7), 2: (2, 1)}
# TensorRT's limit. Source: its operator reference, TopK: "K must be at most 3840".
MAX_TOPK: Final = 3840


def to_map(x_BNC: Tensor, size: MapSize) -> Tensor:
    """The tokens as a (B, C, H, W) map: a channels-last view of the same memory."""
    return x_BNC.transpose(1, 2).unflatten(2, size)


def to_tokens(x_BCHW: Tensor) -> Tensor:
    """The map as (B, N, C) tokens, row by row."""
    return x_BCHW.flatten(2).transpose(1, 2)


class LocalPosition(nn.Module):
    """The local branch of every attention: a linear layer, then a depthwise 3x3 convolution."""

    def __init__(self, dim: int, **factory: Any) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, dim, **factory)
        self.conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, **factory)

    def forward(self, x_BNC: Tensor, size: MapSize) -> Tensor:
        return to_tokens(self.conv(to_map(self.linear(x_BNC), size)))


class GlobalAttention(nn.Module):
    """Multi-head attention of all tokens to all tokens, plus the local branch.

    `factory`, here and below, holds torch's `device` and `dtype`.
    """

    def __init__(
        self, dim: int, num_heads: int, attn_drop: float, proj_drop: float, **factory: Any
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attn_drop = attn_drop
        self.q = nn.Linear(dim, dim, **factory)
        self.kv = nn.Linear(dim, 2 * dim, **factory)
        self.position = LocalPosition(dim, **factory)
        self.proj = nn.Linear(dim, dim, **factory)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(
        self, x_BNC: Tensor, size: MapSize, _significance_BHW: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        return self.attend(x_BNC, x_BNC, size), None

    def attend(self, x_BNC: Tensor, context_BMC: Tensor, size: MapSize) -> Tensor:
        """Attention of the tokens to `context_BMC`, projected: (B, N, C)."""
        q_BhNd = self.q(x_BNC).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        kv = self.kv(context_BMC).unflatten(2, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        k_BhMd, v_BhMd = kv.unbind(0)
        dropout = self.attn_drop if self.training else 0.0
        out_BhNd = attention(q_BhNd, k_BhMd, v_BhMd, dropout)
        out_BNC = out_BhNd.transpose(1, 2).flatten(2)
        return self.proj_drop(self.proj(out_BNC + self.position(x_BNC, size)))


@register_notrace_module
class SelfGuidedAttention(GlobalAttention):
    """Attention of all N tokens to M merged ones; less significant tokens merge in longer runs.

    The released model sorts twice, along rows and along columns. Where no two significances are
    equal, both sorts give the same order, so one sort and one key-value layer are enough here.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        reduction: int,
        attn_drop: float,
        proj_drop: float,
        **factory: Any,
    ) -> None:
        super().__init__(dim, num_heads, attn_drop, proj_drop, **factory)
        self.shares = TOKEN_SHARES[reduction]
        self.merge = nn.ModuleList([nn.Linear(run, 1, **factory) for run in RUN_SIZES[reduction]])

    def forward(
        self, x_BNC: Tensor, size: MapSize, significance_BHW: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        assert significance_BHW is not None, "the block before computes a significance map"
        order_BN = ascending_order(significance_BHW.flatten(1))
        sorted_BNC = x_BNC.gather(1, order_BN.unsqueeze(2).expand(-1, -1, x_BNC.shape[2]))
        lengths = [int(x_BNC.shape[1] * share) for share in self.shares]
        merged = [
            merge_runs(part, layer)
            for part, layer in zip(sorted_BNC.split(lengths, dim=1), self.merge, strict=True)
        ]
        return self.attend(x_BNC, torch.cat(merged, dim=1), size), None


@register_notrace_module
class HybridScaleAttention(nn.Module):
    """Half of the heads attend to the whole map at a coarse scale, half to 7x7 windows.

    A token's significance is the attention that it receives, averaged over the heads and queries
    of each half and summed over the two halves.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        reduction: int,
        attn_drop: float,
        proj_drop: float,
        **factory: Any,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads // 2
        self.scale = (dim // num_heads) ** -0.5
        self.reduction = reduction
        # One matrix product gives the queries of the coarse half (C / 2 channels), then queries,
        # keys and values of the fine half (3 C / 2 channels).
        self.qkv = nn.Linear(dim, 2 * dim, **factory)
        self.reduce = nn.Conv2d(dim, dim, reduction, stride=reduction, **factory)
        self.reduce_norm = nn.LayerNorm(dim, **factory)
        self.kv1 = nn.Linear(dim, dim, **factory)
        self.attn_drop = nn.Dropout(attn_drop)
        self.position = LocalPosition(dim, **factory)
        self.proj = nn.Linear(dim, dim, **factory)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(
        self, x_BNC: Tensor, size: MapSize, _significance_BHW: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The attended tokens (B, N, C) and the significance map (B, H, W), without gradient."""
        half = x_BNC.shape[2] // 2
        q1_BNC, qkv2_BNC = self.qkv(x_BNC).split((half, 3 * half), dim=2)
        coarse, coarse_map = self._whole_image(q1_BNC, x_BNC, size)
        fine, fine_map = self._windows(qkv2_BNC, size)
        out_BNC = torch.cat((coarse, fine), dim=2) + self.position(x_BNC, size)
        return self.proj_drop(self.proj(out_BNC)), fine_map + coarse_map

    def _whole_image(self, q1_BNC: Tensor, x_BNC: Tensor, size: MapSize) -> tuple[Tensor, Tensor]:
        """The coarse heads' output (B, N, C / 2) and the attention received (B, H, W)."""
        reduced_BMC = F.gelu(self.reduce_norm(to_tokens(self.reduce(to_map(x_BNC, size)))))
        q_BhNd = q1_BNC.unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        kv = self.kv1(reduced_BMC).unflatten(2, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        k_BhMd, v_BhMd = kv.unbind(0)
        attention_BhNM = (q_BhNd @ k_BhMd.transpose(2, 3) * self.scale).softmax(-1)
        received_BM = attention_BhNM.detach().mean((1, 2), dtype=at_least_float32(attention_BhNM))
        out_BNC = (self.attn_drop(attention_BhNM) @ v_BhMd).transpose(1, 2).flatten(2)
        r = self.reduction
        received_Bhw = received_BM.unflatten(1, (size[0] // r, size[1] // r))
        return out_BNC, received_Bhw.repeat_interleave(r, 1).repeat_interleave(r, 2)

    def _windows(self, qkv2_BNC: Tensor, size: MapSize) -> tuple[Tensor, Tensor]:
        """The fine heads' output (B, N, C / 2) and the attention received (B, H, W)."""
        windows = Windows(size)
        qkv = windows.split(qkv2_BNC).unflatten(3, (3, self.num_heads, -1))
        q_BGhTd, k_BGhTd, v_BGhTd = qkv.permute(3, 0, 1, 4, 2, 5).unbind(0)
        scores_BGhTT = q_BGhTd @ k_BGhTd.transpose(3, 4) * self.scale
        if windows.padded:
            valid_GT = windows.valid(qkv2_BNC.device)
            scores_BGhTT = scores_BGhTT.masked_fill(~valid_GT[:, None, None, :], float("-inf"))
        attention_BGhTT = scores_BGhTT.softmax(-1)
        received_BGhTT = attention_BGhTT.detach()
        if windows.padded:
            received_BGhTT = received_BGhTT * valid_GT[:, None, :, None]
        # The divisor is 49 even for windows with fewer tokens on the map: each of a border
        # window's few keys receives more attention, and would rank too high otherwise.
        received_BGT = received_BGhTT.sum((2, 3), dtype=at_least_float32(attention_BGhTT))
        received_BGT = received_BGT / (self.num_heads * WINDOW**2)
        out_BGTC = (self.attn_drop(attention_BGhTT) @ v_BGhTd).transpose(2, 3).flatten(3)
        out_BNC = windows.join(out_BGTC)
        received_BN1 = windows.join(received_BGT.unsqueeze(3))
        return out_BNC, received_BN1.squeeze(2).unflatten(1, size)


class Windows:
    """A map cut into windows of 7x7, or of the whole map where that is smaller.

    The map is padded at the bottom and at the right to whole windows.
    """

    def __init__(self, size: MapSize) -> None:
        self.size = size
        self.window = (min(WINDOW, size[0]), min(WINDOW, size[1]))
        self.pad = (-size[0] % self.window[0], -size[1] % self.window[1])
        self.grid = (
            (size[0] + self.pad[0]) // self.window[0],
            (size[1] + self.pad[1]) // self.window[1],
        )

    @property
    def padded(self) -> bool:
        return self.pad != (0, 0)

    def split(self, x_BNC: Tensor) -> Tensor:
        """The (B, N, C) tokens as (B, G, T, C) windows; padding tokens are zero."""
        x_BHWC = x_BNC.unflatten(1, self.size)
        if self.padded:
            x_BHWC = F.pad(x_BHWC, (0, 0, 0, self.pad[1], 0, self.pad[0]))
        x = x_BHWC.unflatten(2, (self.grid[1], self.window[1]))
        x = x.unflatten(1, (self.grid[0], self.window[0])).transpose(2, 3)
        return x.flatten(3, 4).flatten(1, 2)

    def join(self, x_BGTC: Tensor) -> Tensor:
        """The (B, G, T, C) windows as (B, N, C) tokens, without the padding."""
        x = x_BGTC.unflatten(2, self.window).unflatten(1, self.grid).transpose(2, 3)
        x_BHWC = x.flatten(3, 4).flatten(1, 2)
        if self.padded:
            x_BHWC = x_BHWC[:, : self.size[0], : self.size[1]]
        return x_BHWC.flatten(1, 2)

    def valid(self, device: torch.device) -> Tensor:
        """(G, T): true for tokens of the map, false for padding."""
        ones = torch.ones(1, self.size[0] * self.size[1], 1, device=device)
        return self.split(ones)[0, :, :, 0] > 0


def attention(q_BhNd: Tensor, k_BhMd: Tensor, v_BhMd: Tensor, dropout: float) -> Tensor:
    """Scaled dot-product attention: (B, h, N, d)."""
    if q_BhNd.device.type == "cpu" and q_BhNd.dtype in {torch.bfloat16, torch.float16}:
        # torch's fused backward pass is slow in half precision on a CPU. Written out as here,
        # forward and backward of b2 take 0.90 of its time. Source: benchmarks/model_speed.py.
        weights = (q_BhNd @ k_BhMd.transpose(2, 3) * q_BhNd.shape[3] ** -0.5).softmax(-1)
        return F.dropout(weights, dropout) @ v_BhMd
    return F.scaled_dot_product_attention(q_BhNd, k_BhMd, v_BhMd, dropout_p=dropout)


# `attention` branches on the device, so torch.fx has to call it instead of tracing into it.
register_notrace_function(attention)


def at_least_float32(x: Tensor) -> torch.dtype:
    """The type in which significances are summed; in half precision too many tokens would tie."""
    return torch.promote_types(x.dtype, torch.float32)


def ascending_order(significance_BN: Tensor) -> Tensor:
    """Token indices by ascending significance; tokens of equal significance keep their order."""
    if torch.onnx.is_in_onnx_export():
        return _order_for_export(significance_BN)
    return significance_BN.sort(dim=1, stable=True).indices


def _order_for_export(significance_BN: Tensor) -> Tensor:
    """The same order by operators that ONNX and TensorRT have.

    torch 2.14 cannot export a stable sort. TopK, too, puts the lower index first, but in TensorRT
    gives `MAX_TOPK` tokens at most; the next ones follow from what is left.
    """
    parts: list[Tensor] = []
    left_BN = significance_BN
    for start in range(0, significance_BN.shape[1], MAX_TOPK):
        if parts:
            left_BN = left_BN.scatter(1, parts[-1], math.inf)
        length = min(MAX_TOPK, significance_BN.shape[1] - start)
        parts.append(left_BN.topk(length, dim=1, largest=False).indices)
    return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]


def merge_runs(part_BNC: Tensor, layer: nn.Module) -> Tensor:
    """The weighted sum of each run of consecutive tokens: (B, N / run, C).

    A run has as many tokens as the layer has weights. If that number does not divide N, the run
    length is the next smaller divisor of N, and the weights are interpolated to that length.
    """
    assert isinstance(layer, nn.Linear)
    length, weight = part_BNC.shape[1], layer.weight[0]
    run = next(n for n in range(min(weight.shape[0], length), 0, -1) if length % n == 0)
    if run != weight.shape[0]:
        weight = resample_weights(weight, run)
    return torch.einsum("bmrc,r->bmc", part_BNC.unflatten(1, (-1, run)), weight) + layer.bias


def resample_weights(weight: Tensor, length: int) -> Tensor:
    """The (n,) weights interpolated linearly to (length,), with the same sum."""
    scaled = F.interpolate(weight[None, None], size=length, mode="linear")[0, 0]
    scaled = scaled * (weight.shape[0] / length)
    return scaled + (weight.sum() - scaled.sum()) / length
