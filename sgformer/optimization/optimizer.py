"""AdamW and its learning-rate schedule."""

import math
from typing import Any

import torch
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import nn

from sgformer.config import OptimizerConfig
from sgformer.model.stages import head_names


def create_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices and convolutions, not on norms, biases, position table.

    With layer decay, or a factor for the head, each group has timm's `lr_scale`, a factor on the
    learning rate. Frozen parameters are in the groups too: they join the training later.
    """
    exempt: set[str] = getattr(model, "no_weight_decay", set)()
    if config.layer_decay is None:
        groups = param_groups_weight_decay(model, config.weight_decay, no_weight_decay_list=exempt)
    else:
        groups = param_groups_layer_decay(
            model, config.weight_decay, exempt, layer_decay=config.layer_decay
        )
    if config.head_learning_rate_factor != 1.0:
        groups = _with_scaled_head(model, groups, config.head_learning_rate_factor)
    on_gpu = any(parameter.is_cuda for parameter in model.parameters())
    # One kernel for all parameters; on a CPU torch's default.
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=on_gpu or None)


def _with_scaled_head(
    model: nn.Module, groups: list[dict[str, Any]], factor: float
) -> list[dict[str, Any]]:
    """The groups, each split into what is not of the head and what is, with a scaled rate."""
    names = head_names(model)
    head = {id(p) for name, p in model.named_parameters() if name in names}
    parts = []
    for group in groups:
        scale = group.get("lr_scale", 1.0)
        for in_head, lr_scale in ((False, scale), (True, scale * factor)):
            params = [p for p in group["params"] if (id(p) in head) is in_head]
            if params:
                parts.append({**group, "params": params, "lr_scale": lr_scale})
    return parts


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Sets the learning rate of each parameter group, times its `lr_scale` if it has one."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get("lr_scale", 1.0)


def learning_rate_at(
    step: int, steps_per_epoch: int, max_epochs: int, config: OptimizerConfig
) -> float:
    """The learning rate of an optimizer step; `step` counts from 0 over the whole training."""
    num_steps = max_epochs * steps_per_epoch
    num_warmup_steps = round(config.warmup_epochs * steps_per_epoch)
    if step < num_warmup_steps:
        return config.learning_rate * (step + 1) / num_warmup_steps
    if config.lr_schedule == "constant":
        return config.learning_rate
    progress = (step - num_warmup_steps) / max(1, num_steps - num_warmup_steps)
    low = min(config.min_learning_rate, config.learning_rate)
    return low + (config.learning_rate - low) * (1 + math.cos(math.pi * progress)) / 2
