"""Hybrid-scale, self-guided and global attention of SG-Former.

Source: Ren et al., "SG-Former: Self-guided Transformer with Evolving Token Reallocation",
ICCV 2023, section 3.

Shapes in names: B images, N = H * W tokens, C channels, h heads, d = C / h, M reduced tokens,
G windows a head, T tokens a window.
"""

from typing import Any, Final

import torch
import torch.nn.functional as F
from timm.models import register_notrace_function, register_notrace_module
from torch import Tensor, nn

MapSize = tuple[int, int]
WINDOW: Final = 7
# Shares of a stage's tokens, least significant first, and how many of them become one token,
# by the stage's reduction. Source: the paper's released models.
TOKEN_SHARES: Final = {8: (0.25, 0.5, 0.25), 4: (0.25, 0.5, 0.25), 2: (0.5, 0.5)}
RUN_SIZES: Final = {8: (196, 56, 28), 4: (49, 14, 7), 2: (2, 1)}


def to_map(x_BNC: Tensor, size: MapSize) -> Tensor:
    """Tokens as a (B, C, H, W) map; a channels-last view, nothing is copied."""
    return x_BNC.transpose(1, 2).unflatten(2, size)


def to_tokens(x_BCHW: Tensor) -> Tensor:
    """A map as (B, N, C) tokens in row-major order."""
    return x_BCHW.flatten(2).transpose(1, 2)


class LocalPosition(nn.Module):
    """The position branch of every attention: a linear layer, then a depthwise 3x3 convolution."""

    def __init__(self, dim: int, **factory: Any) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, dim, **factory)
        self.conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, **factory)

    def forward(self, x_BNC: Tensor, size: MapSize) -> Tensor:
        return to_tokens(self.conv(to_map(self.linear(x_BNC), size)))


class GlobalAttention(nn.Module):
    """Multi-head attention among all tokens, with the local position branch.

    `factory` here and below: torch's `device` and `dtype`.
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

    def forward(self, x_BNC: Tensor, size: MapSize) -> Tensor:
        return self.attend(x_BNC, x_BNC, size)

    def attend(self, x_BNC: Tensor, context_BMC: Tensor, size: MapSize) -> Tensor:
        """What the tokens read from `context_BMC`, projected: (B, N, C)."""
        q_BhNd = self.q(x_BNC).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        kv = self.kv(context_BMC).unflatten(2, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        k_BhMd, v_BhMd = kv.unbind(0)
        dropout = self.attn_drop if self.training else 0.0
        out_BhNd = attention(q_BhNd, k_BhMd, v_BhMd, dropout)
        out_BNC = out_BhNd.transpose(1, 2).flatten(2)
        return self.proj_drop(self.proj(out_BNC + self.position(x_BNC, size)))


@register_notrace_module
class SelfGuidedAttention(GlobalAttention):
    """Attention to few tokens: the less significant a token, the more of them share one.

    The released model sorts twice, along rows and along columns; with distinct significances
    both visit the same tokens in the same order, so one sort and one key-value layer do.
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

    def forward(self, x_BNC: Tensor, size: MapSize, significance_BHW: Tensor) -> Tensor:  # type: ignore[override]
        order_BN = ascending_order(significance_BHW.flatten(1))
        sorted_BNC = x_BNC.gather(1, order_BN.unsqueeze(2).expand(-1, -1, x_BNC.shape[2]))
        lengths = [int(x_BNC.shape[1] * share) for share in self.shares]
        merged = [
            merge_runs(part, layer)
            for part, layer in zip(sorted_BNC.split(lengths, dim=1), self.merge, strict=True)
        ]
        return self.attend(x_BNC, torch.cat(merged, dim=1), size)


@register_notrace_module
class HybridScaleAttention(nn.Module):
    """Half of the heads look at the whole image, coarsely; half at 7x7 windows, finely.

    Also gives back how much attention each token received: its significance.
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
        # What reads the tokens as they are, in one product: the coarse half's queries, then
        # queries, keys and values of the fine half.
        self.qkv = nn.Linear(dim, 2 * dim, **factory)
        self.reduce = nn.Conv2d(dim, dim, reduction, stride=reduction, **factory)
        self.reduce_norm = nn.LayerNorm(dim, **factory)
        self.kv1 = nn.Linear(dim, dim, **factory)
        self.attn_drop = nn.Dropout(attn_drop)
        self.position = LocalPosition(dim, **factory)
        self.proj = nn.Linear(dim, dim, **factory)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x_BNC: Tensor, size: MapSize) -> tuple[Tensor, Tensor]:
        """The attended tokens (B, N, C) and the significance map (B, H, W), without gradient."""
        half = x_BNC.shape[2] // 2
        q1_BNC, qkv2_BNC = self.qkv(x_BNC).split((half, 3 * half), dim=2)
        coarse, coarse_map = self._whole_image(q1_BNC, x_BNC, size)
        fine, fine_map = self._windows(qkv2_BNC, size)
        out_BNC = torch.cat((coarse, fine), dim=2) + self.position(x_BNC, size)
        return self.proj_drop(self.proj(out_BNC)), fine_map + coarse_map

    def _whole_image(self, q1_BNC: Tensor, x_BNC: Tensor, size: MapSize) -> tuple[Tensor, Tensor]:
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
        # Over 49 whatever the window holds: a border window must not rank higher for its few keys.
        received_BGT = received_BGhTT.sum((2, 3), dtype=at_least_float32(attention_BGhTT))
        received_BGT = received_BGT / (self.num_heads * WINDOW**2)
        out_BGTC = (self.attn_drop(attention_BGhTT) @ v_BGhTd).transpose(2, 3).flatten(3)
        return windows.join(out_BGTC), windows.join(received_BGT.unsqueeze(3)).squeeze(
            2
        ).unflatten(1, size)


class Windows:
    """Cuts a map into windows of at most 7x7, padded at the bottom and at the right."""

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
        """(B, N, C) tokens as (B, G, T, C) windows, padding tokens zero."""
        x_BHWC = x_BNC.unflatten(1, self.size)
        if self.padded:
            x_BHWC = F.pad(x_BHWC, (0, 0, 0, self.pad[1], 0, self.pad[0]))
        x = x_BHWC.unflatten(2, (self.grid[1], self.window[1]))
        x = x.unflatten(1, (self.grid[0], self.window[0])).transpose(2, 3)
        return x.flatten(3, 4).flatten(1, 2)

    def join(self, x_BGTC: Tensor) -> Tensor:
        """(B, G, T, C) windows as (B, N, C) tokens, padding dropped."""
        x = x_BGTC.unflatten(2, self.window).unflatten(1, self.grid).transpose(2, 3)
        x_BHWC = x.flatten(3, 4).flatten(1, 2)
        if self.padded:
            x_BHWC = x_BHWC[:, : self.size[0], : self.size[1]]
        return x_BHWC.flatten(1, 2)

    def valid(self, device: torch.device) -> Tensor:
        """(G, T): true where a window's place lies on the map."""
        ones = torch.ones(1, self.size[0] * self.size[1], 1, device=device)
        return self.split(ones)[0, :, :, 0] > 0


def attention(q_BhNd: Tensor, k_BhMd: Tensor, v_BhMd: Tensor, dropout: float) -> Tensor:
    """Scaled dot-product attention: (B, h, N, d)."""
    if q_BhNd.device.type == "cpu" and q_BhNd.dtype in {torch.bfloat16, torch.float16}:
        # torch's fused backward is slow in half precision on a CPU: written out, forward and
        # backward of b2 take 0.90 of the time. Source: benchmarks/model_speed.py.
        weights = (q_BhNd @ k_BhMd.transpose(2, 3) * q_BhNd.shape[3] ** -0.5).softmax(-1)
        return F.dropout(weights, dropout) @ v_BhMd
    return F.scaled_dot_product_attention(q_BhNd, k_BhMd, v_BhMd, dropout_p=dropout)


# It branches on the device: torch.fx takes it as it is.
register_notrace_function(attention)


def at_least_float32(x: Tensor) -> torch.dtype:
    """What to sum its significances in: in half precision too many would tie."""
    return torch.promote_types(x.dtype, torch.float32)


def ascending_order(significance_BN: Tensor) -> Tensor:
    """Indices from the least to the most significant token; ties in order of position."""
    if torch.onnx.is_in_onnx_export():
        # A stable sort has no ONNX form in torch 2.14; TopK keeps the lower index first as well.
        return significance_BN.sort(dim=1).indices
    return significance_BN.sort(dim=1, stable=True).indices


def merge_runs(part_BNC: Tensor, layer: nn.Module) -> Tensor:
    """Every run of consecutive tokens as their weighted sum: (B, N / run, C).

    The run is as long as the weights where the tokens divide into such runs; elsewhere the
    longest that divides them, and the weights are interpolated to it, their sum kept.
    """
    assert isinstance(layer, nn.Linear)
    length, weight = part_BNC.shape[1], layer.weight[0]
    run = next(n for n in range(min(weight.shape[0], length), 0, -1) if length % n == 0)
    if run != weight.shape[0]:
        weight = resample_weights(weight, run)
    return torch.einsum("bmrc,r->bmc", part_BNC.unflatten(1, (-1, run)), weight) + layer.bias


def resample_weights(weight: Tensor, length: int) -> Tensor:
    """The weights interpolated linearly to another length, with the same sum."""
    scaled = F.interpolate(weight[None, None], size=length, mode="linear")[0, 0]
    scaled = scaled * (weight.shape[0] / length)
    return scaled + (weight.sum() - scaled.sum()) / length
