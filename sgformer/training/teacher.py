"""Loads the teacher of a distillation from checkpoints of this program."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from sgformer.config import TrainConfig
from sgformer.errors import CheckpointError
from sgformer.model.build import create_model
from sgformer.model.weight_files import StoredWeights, file_of, read_weights
from sgformer.optimization.teacher import Member, Teacher
from sgformer.training.checkpoint_file import read_metadata
from sgformer.validation import validate

MOST_NAMES: Final = 5  # how many classes a message lists at most


def load_teacher(
    config: TrainConfig,
    stored: Sequence[StoredWeights] | None,
    classes: Sequence[str],
    device: torch.device,
) -> Teacher | None:
    """The teacher that a resolved configuration asks for; None: it asks for none.

    Args:
        config: The student's configuration.
        stored: Copies of the teacher's checkpoints; None: the config's own paths are read.
        classes: The student's classes, in the order of its outputs.
        device: Where the student is trained.

    Raises:
        CheckpointError: A checkpoint cannot be read, or is of other classes.
        ConfigError: A checkpoint's configuration is none of this version.
    """
    if not config.distillation.is_used:
        return None
    if stored is None:
        paths = [file_of(path) for path in config.distillation.teacher]
    else:
        paths = [one.path for one in stored]
    members = [_member(path, classes) for path in paths]
    return Teacher(members, config.data.preprocessing, device)


def teacher_in_words(path: Path, classes: Sequence[str]) -> str:
    """The teacher's model in words; its weights are not read.

    Raises:
        CheckpointError: It cannot be read, or is of other classes.
        ConfigError: Its configuration is none of this version.
    """
    config, known = _description(file_of(path))
    _order(known, classes, path)
    with torch.device("meta"):
        model = create_model(config, len(classes))
    return f"{config.model.name}, {_num_parameters(model) / 1e6:.2f} M parameters"


def _num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _member(path: Path, classes: Sequence[str]) -> Member:
    config, known = _description(path)
    order = _order(known, classes, path)
    model = create_model(config, len(known))
    try:
        model.load_state_dict(read_weights(path).tensors)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path} does not hold the weights of the {config.model.name} that its header "
            f"describes: {str(error).splitlines()[0]}"
        ) from None
    return Member(model, config.data.preprocessing, config.data.image_size, order)


def _description(path: Path) -> tuple[TrainConfig, tuple[str, ...]]:
    """The resolved configuration and the classes of a checkpoint."""
    header: dict[str, Any] = read_metadata(path)
    if "config" not in header:
        raise CheckpointError(
            f"{path} does not say which model it is of; a teacher is the model that a run "
            "delivered (runs/x/best), or a trial's best.safetensors"
        )
    config = validate(TrainConfig, header["config"], str(path)).resolved()
    return config, tuple(header["classes"])


def _order(known: Sequence[str], classes: Sequence[str], path: Path) -> tuple[int, ...]:
    """The position of each class among the teacher's outputs."""
    only_here, only_there = set(classes) - set(known), set(known) - set(classes)
    if only_here or only_there:
        raise CheckpointError(
            f"{path} has other classes than the images: only the images have "
            f"{_some(only_here)}, only the teacher has {_some(only_there)}"
        )
    return tuple(known.index(name) for name in classes)


def _some(names: set[str]) -> str:
    more = len(names) - MOST_NAMES
    listed = ", ".join(sorted(names)[:MOST_NAMES]) or "none"
    return listed + (f" and {more} more" if more > 0 else "")
