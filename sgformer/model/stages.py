"""Head and stages of a model: which of its tensors `freeze` names, for SG-Former and timm."""

import functools
from collections.abc import Iterator
from itertools import chain

import timm
import torch
from timm.models._manipulate import group_with_matcher
from torch import nn

import sgformer.model.sizes  # noqa: F401  registers SG-Former's models with timm
from sgformer.errors import ConfigError
from sgformer.model.fusion import NAME as FUSION
from sgformer.model.fusion import is_fused


def head_names(model: nn.Module) -> frozenset[str]:
    """The names of the parameters and buffers of timm's classifier, and of a fusion before it.

    A distilled model has two classifiers.
    """
    head = model.get_classifier()  # type: ignore[operator]
    heads = [*head] if isinstance(head, (tuple, list)) else [head]
    heads += [getattr(model, FUSION)] if is_fused(model) else []
    inside = {id(tensor) for part in heads for _, tensor in _tensors(part)}
    return frozenset(name for name, tensor in _tensors(model) if id(tensor) in inside)


def stage_names(model: nn.Module) -> list[frozenset[str]]:
    """The names of the parameters and buffers of the stem, and then of each stage.

    A stage is what timm's `group_matcher(coarse=True)` takes for one: a stage of a pyramid, a
    block of a plain transformer. What timm puts together with the head, such as a last norm,
    belongs to no stage. The list is empty if timm does not group the model's tensors.
    """
    try:
        matcher = model.group_matcher(coarse=True)  # type: ignore[operator]
    except (AttributeError, AssertionError):  # rdnet asserts that coarse groups are not wanted
        return []
    groups = group_with_matcher(((name, name) for name, _ in _tensors(model)), matcher)
    head = head_names(model)
    return [frozenset(names) for _, names in sorted(groups.items()) if head.isdisjoint(names)]


@functools.cache
def num_stages(name: str) -> int:
    """How many stages a model has, its stem not counted; found out once a process."""
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=7)
    return max(0, len(stage_names(model)) - 1)


def frozen_names(model: nn.Module, name: str, freeze: str) -> frozenset[str]:
    """The names of the parameters and buffers that a value of `freeze` means.

    Args:
        model: The model.
        name: The model's name, for the message.
        freeze: `none`, `backbone` or `stages_N`.

    Raises:
        ConfigError: The model does not have as many stages.
    """
    if freeze == "none":
        return frozenset()
    if freeze == "backbone":
        return frozenset(tensor for tensor, _ in _tensors(model)) - head_names(model)
    stages, wanted = stage_names(model), int(freeze.removeprefix("stages_"))
    if wanted >= len(stages):
        raise ConfigError(f"train.freeze: {too_many_stages(name, freeze, len(stages) - 1)}")
    return frozenset().union(*stages[: wanted + 1])


def too_many_stages(name: str, freeze: str, available: int) -> str:
    """The message about a model with fewer stages than `freeze` asks for."""
    if available < 1:
        return f"{name} has no stages that timm tells apart; take none or backbone, got {freeze!r}"
    return (
        f"{name} has {available} stages; take none, backbone, or stages_1 to "
        f"stages_{available}, got {freeze!r}"
    )


def _tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    return chain(model.named_parameters(), model.named_buffers())
