"""Conversion of released SG-Former checkpoints to this model's parameter names.

Source: parameter names and shapes of the authors' released models (ICCV 2023).
"""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

import torch
from torch import Tensor

from sgformer.errors import CheckpointError

StateDict = Mapping[str, Tensor]
# Keys under which training scripts store the weights, averaged weights first.
WRAPPERS: Final = ("state_dict_ema", "model_ema", "state_dict", "model")
MOST_WRAPPERS: Final = 8  # how deep the weights may lie
PREFIXES: Final = ("module.", "ema.", "model.", "_orig_mod.")
# Prefixes of parameter names within a block: (the released model's, ours).
BLOCK_NAMES: Final = (
    ("attn.sr.", "attn.reduce."),
    ("attn.norm.", "attn.reduce_norm."),
    ("attn.lepe_linear.", "attn.position.linear."),
    ("attn.lepe_conv.", "attn.position.conv."),
    ("mlp.dwconv.dwconv.", "mlp.conv."),
)


def convert_state_dict(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """A released checkpoint's weights under our names, with their dtypes.

    Args:
        state_dict: The weights, or a checkpoint that holds the weights under one of the keys
            `WRAPPERS` (the first key present counts). Names may have a prefix of `PREFIXES`.

    Returns:
        A state dict for `SGFormer.load_state_dict`, for a model of the same sizes.

    Raises:
        CheckpointError: The names are not SG-Former's; the message lists the first unknown names.
    """
    released = unwrap(state_dict)
    converted: dict[str, Tensor] = {}
    unknown = []
    for name, value in released.items():
        joined = _joined(name, released)
        if joined is not None:
            converted.update(joined)
            continue
        new_name = _our_name(name)
        if new_name is None:
            unknown.append(name)
        else:
            converted[new_name] = value
    if unknown or not converted:
        raise CheckpointError(
            f"not an SG-Former checkpoint: {len(unknown)} of {len(released)} names are unknown, "
            f"the first: {', '.join(unknown[:5]) or 'none: it is empty'}"
        )
    return converted


def unwrap(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights by name, without the keys `WRAPPERS` and prefixes of training scripts."""
    inner = state_dict
    for _ in range(MOST_WRAPPERS):  # a pickled mapping may contain itself
        wrapped = (inner.get(key) for key in WRAPPERS)
        below = next((value for value in wrapped if isinstance(value, Mapping)), None)
        if below is None:
            break
        inner = below
    tensors = {
        name: value
        for name, value in inner.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    while prefix := next((p for p in PREFIXES if _all_start_with(tensors, p)), None):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def _all_start_with(names: Collection[str], prefix: str) -> bool:
    return bool(names) and all(name.startswith(prefix) for name in names)


def is_released(state_dict: Mapping[str, Any]) -> bool:
    """Whether the parameter names are a released model's, not ours."""
    return any(name.endswith("patch_embed1.norm.weight") for name in state_dict)


def _joined(name: str, released: StateDict) -> dict[str, Tensor] | None:
    """Joins released weights that are parts of one larger weight of our model.

    Returns:
        Our joined weight by name, if `name` is its first part; an empty dict if `name` is another
        part (the first part has joined it already); None if `name` is not a part.
    """
    block, attn, rest = name.partition(".attn.")
    layer, _, kind = rest.partition(".")

    def part(other: str) -> Tensor:
        return released[f"{block}.attn.{other}.{kind}"]

    if not attn or f"{block}.attn.kv2.{kind}" not in released or layer not in _PARTS:
        return None
    guided = f"{block}.attn.q.{kind}" in released
    ours = _our_name(name) or ""
    if guided and layer == "kv1":
        # Each released layer has keys, then values, of one half of the heads. Our layer has the
        # keys of all heads, then the values of all heads.
        (k1, v1), (k2, v2) = part("kv1").chunk(2), part("kv2").chunk(2)
        return {ours.replace(".kv1.", ".kv."): torch.cat((k1, k2, v1, v2))}
    if not guided and layer == "q1":
        joined = torch.cat((part("q1"), part("q2"), part("kv2")))
        return {ours.replace(".q1.", ".qkv."): joined}
    return {} if layer in {"q2", "kv2"} else None


_PARTS: Final = ("q1", "q2", "kv1", "kv2")


def _our_name(name: str) -> str | None:
    """Our name for a released parameter name; None for an unknown name."""
    for pattern, rename in _RULES:
        match = pattern.fullmatch(name)
        if match:
            return rename(match)
    return None


def _stem(match: re.Match[str]) -> str:
    """The released convolutions 0, 2 and 4 are our layers 0, 3 and 6, their norms 1, 4 and 7."""
    index = {"0": 0, "2": 3, "4": 6}[match[1]] + (match[2] == "bn")
    return f"stem.{index}.{match[3]}"


def _downsample(match: re.Match[str]) -> str:
    """The released convolutions 1, 2 and 3 are our layers 0, 3 and 6, their norms 1, 4 and 7."""
    index = 3 * (int(match[2]) - 1) + (match[3] == "bn")
    return f"stages.{int(match[1]) - 1}.downsample.{index}.{match[4]}"


def _block(match: re.Match[str]) -> str:
    rest = match[3]
    for theirs, ours in BLOCK_NAMES:
        if rest.startswith(theirs):
            rest = ours + rest.removeprefix(theirs)
    rest = re.sub(r"^attn\.f(\d)\.", lambda m: f"attn.merge.{int(m[1]) - 1}.", rest)
    return f"stages.{int(match[1]) - 1}.blocks.{match[2]}.{rest}"


_RULES: Final[tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...]] = (
    (re.compile(r"pos_embed|head\.(?:weight|bias)"), lambda m: m[0]),
    (re.compile(r"patch_embed1\.conv\.([024])\.(c|bn)\.(.+)"), _stem),
    (re.compile(r"patch_embed1\.norm\.(.+)"), lambda m: f"stem_norm.{m[1]}"),
    (re.compile(r"patch_embed([234])\.conv([123])\.(c|bn)\.(.+)"), _downsample),
    (re.compile(r"block([1-4])\.(\d+)\.((?:norm[12]|attn|mlp)\..+)"), _block),
    (re.compile(r"norm([1-4])\.(.+)"), lambda m: f"stages.{int(m[1]) - 1}.norm.{m[2]}"),
)
