"""Weights with the names and shapes of the authors' released models."""

import math
from typing import Any

import numpy as np
import torch

Shapes = dict[str, list[int]]


def released_weights(shapes: Shapes, seed: int) -> dict[str, torch.Tensor]:
    """Float64 weights, drawn by the same rule as those of the reference outputs."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name in sorted(shapes):
        shape = shapes[name]
        value = rng.standard_normal(shape)
        if name.endswith(".weight") and len(shape) == 1:
            value = 1 + 0.1 * value
        elif len(shape) >= 2 and name != "pos_embed":
            value = value / math.sqrt(math.prod(shape[1:]))
        else:
            value = 0.02 * value
        weights[name] = torch.from_numpy(value)
    return weights


class Released(Shapes):
    """Parameter names and shapes of the released class in a configuration with even depths."""

    RUNS = ((196, 56, 28), (49, 14, 7), (2, 1))

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(pos_embed=[1, 3136, config["embed_dims"][0]])
        dims = config["embed_dims"]
        self.embed(dims)
        for i, c in enumerate(dims):
            self.add(f"norm{i + 1}", c)
            for j in range(config["depths"][i]):
                self.block(i, j, c, int(c * config["mlp_ratios"][i]))
        self.add("head", config["num_classes"], dims[-1])

    def add(self, name: str, *shape: int, bias: bool = True) -> None:
        self[f"{name}.weight"] = list(shape)
        if bias:
            self[f"{name}.bias"] = [shape[0]]

    def embed(self, dims: tuple[int, ...]) -> None:
        for i, c in enumerate((3, dims[0], dims[0])):
            self.add(f"patch_embed1.conv.{2 * i}.c", dims[0], c, 3, 3, bias=False)
            self.add(f"patch_embed1.conv.{2 * i}.bn", dims[0])
        self.add("patch_embed1.norm", dims[0])
        for stage in (2, 3, 4):
            before, c = dims[stage - 2], dims[stage - 1]
            self.add(f"patch_embed{stage}.conv1.c", c, before, 1, 1, bias=False)
            self.add(f"patch_embed{stage}.conv2.c", c, 1, 3, 3, bias=False)
            self.add(f"patch_embed{stage}.conv3.c", c, c, 1, 1, bias=False)
            for i in (1, 2, 3):
                self.add(f"patch_embed{stage}.conv{i}.bn", c)

    def block(self, i: int, j: int, c: int, hidden: int) -> None:
        block = f"block{i + 1}.{j}"
        attn = f"{block}.attn"
        if i == 3:
            self.add(f"{attn}.q", c, c)
            self.add(f"{attn}.kv", 2 * c, c)
        elif j % 2:
            for name in ("q", "kv1", "kv2"):
                self.add(f"{attn}.{name}", c, c)
            for k, run in enumerate(self.RUNS[i], 1):
                self.add(f"{attn}.f{k}", 1, run)
        else:
            self.add(f"{attn}.sr", c, c, (8, 4, 2)[i], (8, 4, 2)[i])
            self.add(f"{attn}.norm", c)
            for name, out in (("q1", c // 2), ("kv1", c), ("q2", c // 2), ("kv2", c)):
                self.add(f"{attn}.{name}", out, c)
        self.add(f"{attn}.lepe_linear", c, c)
        self.add(f"{attn}.lepe_conv", c, 1, 3, 3)
        self.add(f"{attn}.proj", c, c)
        self.add(f"{block}.norm1", c)
        self.add(f"{block}.norm2", c)
        self.add(f"{block}.mlp.fc1", hidden, c)
        self.add(f"{block}.mlp.dwconv.dwconv", hidden, 1, 3, 3)
        self.add(f"{block}.mlp.fc2", c, hidden)
