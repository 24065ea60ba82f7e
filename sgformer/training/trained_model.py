"""The model of a checkpoint, built from what the checkpoint says of it."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from sgformer.config import TrainConfig
from sgformer.errors import CheckpointError
from sgformer.model.build import create_model
from sgformer.model.ensemble import PREFIX, Ensemble, Member
from sgformer.training.checkpoint_file import load_checkpoint, read_metadata
from sgformer.validation import validate

MEMBERS: Final = "members"  # in the metadata of an ensemble: the config of each member


def load_trained(path: Path) -> tuple[TrainConfig, nn.Module, tuple[str, ...]]:
    """The resolved config, the model (on the CPU, in eval mode) and the classes of a checkpoint.

    An ensemble's config is that of its first member, whose input it takes.

    Raises:
        CheckpointError: The file is no checkpoint of this program, or does not describe its model.
        ConfigError: Its config is none of this version.
    """
    tensors, metadata = load_checkpoint(path)
    config, classes = _described(metadata, path)
    if MEMBERS not in metadata:
        return config, _built(config, tensors, len(classes)), classes
    members = []
    for i, own in enumerate(_configs(metadata, path)):
        prefix = f"{PREFIX}{i}."
        part = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        members.append(_member(own, _built(own, part, len(classes)), range(len(classes))))
    return config, Ensemble(members, config.data.preprocessing).eval(), classes


def member_of(path: Path, classes: Sequence[str] | None = None) -> Member:
    """The model of a checkpoint as a member of an ensemble.

    Args:
        path: The checkpoint.
        classes: The ensemble's classes, all of which the model has; None: the model's own.

    Raises:
        CheckpointError, ConfigError: See `load_trained`.
    """
    config, model, known = load_trained(path)
    return _member(config, model, [known.index(name) for name in classes or known])


def _member(config: TrainConfig, model: nn.Module, order: Iterable[int]) -> Member:
    data, name = config.data, config.model.name
    return Member(model, data.preprocessing, data.image_size, tuple(order), name)


def read_trained(path: Path) -> tuple[tuple[TrainConfig, ...], tuple[str, ...]]:
    """The resolved config of each model of a checkpoint, and its classes, without its tensors.

    Raises:
        CheckpointError, ConfigError: See `load_trained`.
    """
    metadata = read_metadata(path)
    _, classes = _described(metadata, path)
    return _configs(metadata, path), classes


def ensemble_checkpoint(
    paths: Sequence[Path],
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and metadata of an ensemble's checkpoint, from those of trainings of one data set.

    Args:
        paths: Checkpoints of single models, of the same classes in the same order; the first one's
            images and input are the ensemble's.

    Raises:
        CheckpointError: A file is no checkpoint of this program.
    """
    tensors, configs = dict[str, torch.Tensor](), []
    for i, path in enumerate(paths):
        own, metadata = load_checkpoint(path)
        tensors |= {f"{PREFIX}{i}.{name}": tensor for name, tensor in own.items()}
        configs.append(metadata["config"])
    return tensors, {**_without_version(read_metadata(paths[0])), MEMBERS: configs}


def soup_checkpoint(paths: Sequence[Path]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and metadata of the mean of several models' weights; counters are the first's.

    Source: Wortsman et al., arXiv:2203.05482, section 2. Sums are taken in float64, since equal
    weights should keep their mean.

    Args:
        paths: Checkpoints of single models with equal names and shapes of tensors; the first one's
            config and images are the soup's.

    Raises:
        CheckpointError: A file is no checkpoint of this program.
    """
    first, metadata = load_checkpoint(paths[0])
    sums = {n: tensor.double() for n, tensor in first.items() if tensor.is_floating_point()}
    for path in paths[1:]:
        own, _ = load_checkpoint(path)
        for name, total in sums.items():
            total += own[name]
    means = {n: (total / len(paths)).to(first[n].dtype) for n, total in sums.items()}
    return first | means, _without_version(metadata)


def _without_version(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metadata.items() if name != "format_version"}


def _built(
    config: TrainConfig, tensors: Mapping[str, torch.Tensor], num_classes: int
) -> nn.Module:
    model = create_model(config, num_classes)
    model.load_state_dict(tensors)
    return model.eval()


def _configs(metadata: Mapping[str, Any], path: Path) -> tuple[TrainConfig, ...]:
    each = metadata.get(MEMBERS) or [metadata["config"]]
    return tuple(validate(TrainConfig, one, str(path)).resolved() for one in each)


def _described(metadata: Mapping[str, Any], path: Path) -> tuple[TrainConfig, tuple[str, ...]]:
    if "config" not in metadata:
        raise CheckpointError(
            f"{path} does not say which model it is of; name the model that a run delivered "
            "(runs/x/best), or a trial's best.safetensors"
        )
    config = validate(TrainConfig, metadata["config"], str(path)).resolved()
    return config, tuple(metadata["classes"])
