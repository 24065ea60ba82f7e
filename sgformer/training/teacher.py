"""Loads the teacher of a distillation from checkpoints of this program."""

from collections.abc import Sequence
from pathlib import Path

import torch

from sgformer.config import TrainConfig
from sgformer.errors import CheckpointError, listed
from sgformer.model.weight_files import StoredWeights, file_of
from sgformer.model.widening import check_extends
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
        CheckpointError: A checkpoint cannot be read, or is of other classes.
        ConfigError: A checkpoint's config is none of this version.
    """
    if not config.distillation.is_used:
        return None
    paths = [one.path for one in stored] or map(file_of, config.distillation.teacher)
    members = [_member(path, classes, extends=config.extension.is_used) for path in paths]
    return Teacher(members, config.data.preprocessing, device)


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


def _member(path: Path, classes: Sequence[str], *, extends: bool) -> Member:
    config, model, known = load_trained(path)
    check_classes(known, classes, path, extends=extends)
    order = tuple(known.index(name) for name in classes[: len(known)])
    return Member(model, config.data.preprocessing, config.data.image_size, order)
