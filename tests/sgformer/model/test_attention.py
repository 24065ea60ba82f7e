from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch

from sgformer.model import attention
from sgformer.model.attention import (
    HybridScaleAttention,
    SelfGuidedAttention,
    Windows,
    ascending_order,
    merge_runs,
    resample_weights,
    to_map,
    to_tokens,
)


def test_tokens_and_maps_are_inverse() -> None:
    x = torch.randn(2, 12, 5)
    assert torch.equal(to_tokens(to_map(x, (3, 4))), x)


@pytest.mark.parametrize("size", [(14, 21), (8, 8), (16, 24), (4, 2), (1, 1)])
def test_windows_split_and_join_without_loss(size: tuple[int, int]) -> None:
    windows = Windows(size)
    x = torch.randn(2, size[0] * size[1], 3)
    assert torch.equal(windows.join(windows.split(x)), x)
    assert int(windows.valid(x.device).sum()) == size[0] * size[1]


def test_the_order_is_ascending_with_ties_by_position() -> None:
    significance = torch.tensor([[3.0, 1.0, 2.0, 1.0]])
    assert ascending_order(significance).tolist() == [[1, 3, 2, 0]]


def test_a_run_becomes_its_weighted_sum() -> None:
    layer = torch.nn.Linear(2, 1)
    tokens = torch.randn(1, 6, 3)
    expected = layer(tokens.unflatten(1, (3, 2)).transpose(2, 3)).squeeze(3)
    torch.testing.assert_close(merge_runs(tokens, layer), expected)


@pytest.mark.parametrize("length", [1, 3, 10, 28])
def test_resampled_weights_keep_their_sum(length: int) -> None:
    weight = torch.randn(28)
    resampled = resample_weights(weight, length)
    assert resampled.shape == (length,)
    torch.testing.assert_close(resampled.sum(), weight.sum())


@pytest.mark.parametrize("size", [(8, 8), (16, 8), (56, 56)])
def test_the_significance_map_is_the_attention_received(size: tuple[int, int]) -> None:
    attention = HybridScaleAttention(16, 2, reduction=8, attn_drop=0.5, proj_drop=0.0)
    x = torch.randn(2, size[0] * size[1], 16, requires_grad=True)
    out, significance = attention(x, size)
    assert out.shape == x.shape
    assert significance.shape == (2, *size)
    assert not significance.requires_grad
    # Each query's attention sums to 1: 1 / 49 a token in the fine half, 64 / N in the coarse half.
    num_tokens = size[0] * size[1]
    expected = torch.full((2,), num_tokens / 49 + 64.0)
    torch.testing.assert_close(significance.sum((1, 2)), expected)


def test_the_map_is_taken_before_attention_dropout() -> None:
    attention = HybridScaleAttention(16, 2, reduction=8, attn_drop=0.5, proj_drop=0.0)
    x = torch.randn(1, 64, 16)
    torch.testing.assert_close(attention(x, (8, 8))[1], attention.eval()(x, (8, 8))[1])


def test_the_map_stays_float32_under_autocast() -> None:
    attention = HybridScaleAttention(16, 2, reduction=8, attn_drop=0.0, proj_drop=0.0)
    with torch.autocast("cpu", torch.bfloat16):
        _, significance = attention(torch.randn(1, 64, 16), (8, 8))
    assert significance.dtype == torch.float32


@pytest.mark.parametrize(
    ("reduction", "side"), [(8, 56), (8, 8), (4, 28), (4, 4), (2, 14), (2, 2)]
)
def test_self_guided_attention_takes_every_size(reduction: int, side: int) -> None:
    attention = SelfGuidedAttention(16, 2, reduction, attn_drop=0.1, proj_drop=0.0)
    x = torch.randn(2, side * side, 16)
    out, significance = attention(x, (side, side), torch.rand(2, side, side))
    out.sum().backward()
    assert (out.shape, significance) == (x.shape, None)
    assert all(p.grad is not None for p in attention.parameters())


def test_self_guided_attention_follows_the_map() -> None:
    attention = SelfGuidedAttention(16, 2, reduction=8, attn_drop=0.0, proj_drop=0.0).eval()
    x, significance = torch.randn(1, 64, 16), torch.rand(1, 8, 8)
    same, _ = attention(x, (8, 8), significance * 2)
    other, _ = attention(x, (8, 8), -significance)
    torch.testing.assert_close(attention(x, (8, 8), significance)[0], same)
    assert not torch.allclose(same, other)


def test_the_exported_order_is_the_same_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "MAX_TOPK", 10)

    class Order(torch.nn.Module):
        def forward(self, significance: torch.Tensor) -> torch.Tensor:
            return ascending_order(significance)

    ties = torch.randint(0, 5, (2, 36)).float()
    path = tmp_path / "order.onnx"
    torch.onnx.export(Order().eval(), (ties,), path, input_names=["input"], verbose=False)
    sizes = [node.op_type for node in onnx.load(path).graph.node].count("TopK")
    (order,) = onnxruntime.InferenceSession(path).run(None, {"input": ties.numpy()})
    assert sizes == 4
    assert order.tolist() == ascending_order(ties).tolist()
