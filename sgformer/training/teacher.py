"""Loads the teacher of a distillation from checkpoints of this program."""

from collections.abc import Sequence
from pathlib import Path

import torch

from sgformer.config import TrainConfig
from sgformer.errors import CheckpointError, listed
from sgformer.model.ensemble import Member
from sgformer.model.weight_files import StoredWeights, file_of
from sgformer.model.widening import check_extends
from sgformer.optimization.teacher import Teacher
from sgformer.training.trained_model import member_of, read_trained


def load_teacher(
    config: TrainConfig,
    stored: Sequence[StoredWeights],
    classes: Sequence[str],
    device: torch.device,
) -> Teacher | None:
    """The teacher that a resolved configuration asks for; None: it asks for none.

    Args:
        config: The student's configuration.
        stored: Copies of the teacher's checkpoints; empty: the config's own paths are read.
        classes: The student's classes, in the order of its outputs.
        device: Where the student is trained.

    Raises:
        CheckpointError: A checkpoint cannot be read, is of other classes, or takes features.
        ConfigError: A checkpoint's config is none of this version.
    """
    if not config.distillation.is_used:
        return None
    paths = [one.path for one in stored] or map(file_of, config.distillation.teacher)
    extends = config.extension.is_used
    members = teacher_members(tuple(paths), classes, extends=extends)
    return Teacher(members, config.data.preprocessing, device)


def teacher_members(
    paths: Sequence[Path], classes: Sequence[str], *, extends: bool = False
) -> tuple[Member, ...]:
    """The models of a teacher's checkpoints.

    With `extends` they know the first of the classes only.

    Raises:
        CheckpointError, ConfigError: See `load_teacher`.
    """
    members = []
    for path in paths:
        configs, known = read_trained(path)
        check_classes(known, classes, path, extends=extends)
        check_input(configs, path)
        members.append(member_of(path, classes[: len(known)]))
    return tuple(members)


def check_classes(
    known: Sequence[str], classes: Sequence[str], path: Path, *, extends: bool = False
) -> None:
    """Raises CheckpointError if a teacher knows other classes than the images have.

    With `extends` it must know the first of them, in their order.
    """
    if extends:
        check_extends(known, classes, str(path))
        return
    only_here, only_there = set(classes) - set(known), set(known) - set(classes)
    if only_here or only_there:
        raise CheckpointError(
            f"{path} has other classes than the images: only the images have "
            f"{listed(sorted(only_here))}, only the teacher has {listed(sorted(only_there))}"
        )


def check_input(configs: Sequence[TrainConfig], path: Path) -> None:
    """Raises CheckpointError for a teacher that takes features, which a student has not."""
    if any(config.model.fusion.num_features is not None for config in configs):
        raise CheckpointError(
            f"{path} takes features beside images, and a teacher is shown images alone; name a "
            "model that was trained without data.features"
        )
