"""Loads the teacher of a distillation from checkpoints of this program."""

from collections.abc import Sequence
from pathlib import Path

import torch

from sgformer.config import TrainConfig
from sgformer.errors import CheckpointError, listed
from sgformer.model.weight_files import StoredWeights, file_of
from sgformer.optimization.teacher import Member, Teacher
from sgformer.training.trained_model import load_trained


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
    members = [_member(path, classes) for path in paths]
    return Teacher(members, config.data.preprocessing, device)


def check_classes(known: Sequence[str], classes: Sequence[str], path: Path) -> None:
    """Raises CheckpointError if a teacher knows other classes than the images have."""
    only_here, only_there = set(classes) - set(known), set(known) - set(classes)
    if only_here or only_there:
        raise CheckpointError(
            f"{path} has other classes than the images: only the images have "
            f"{listed(sorted(only_here))}, only the teacher has {listed(sorted(only_there))}"
        )


def check_input(config: TrainConfig, path: Path) -> None:
    """Raises CheckpointError for a teacher that takes features, which a student has not."""
    if config.model.fusion.num_features is not None:
        raise CheckpointError(
            f"{path} takes features beside images, and a teacher is shown images alone; name a "
            "model that was trained without data.features"
        )


def _member(path: Path, classes: Sequence[str]) -> Member:
    config, model, known = load_trained(path)
    check_classes(known, classes, path)
    check_input(config, path)
    order = tuple(known.index(name) for name in classes)
    return Member(model, config.data.preprocessing, config.data.image_size, order)
