"""A run's own copies of the checkpoints that teach its models, beside its other weights.

They are made when a search starts, so the run that they come from may go.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo.config.schema import SearchConfig
from hpo.kept_weights import (
    NUM_DIGITS,
    digest_of,
    read_index,
    stored_weights,
    weights_folder,
    write_index,
)
from hpo.run_folder import RunFolder
from sgformer.config import TrainConfig
from sgformer.disk import noticing_full_disk
from sgformer.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from sgformer.model.weight_files import StoredWeights

SETTING = "train.distillation.teacher"


@dataclass(frozen=True)
class FoundTeacher:
    """A checkpoint of a teacher, which was read and which has the images' classes.

    Attributes:
        path: The path that the config names.
        file: The checkpoint that it stands for.
        text: Its model, in words.
    """

    path: Path
    file: Path
    text: str

    def in_words(self) -> str:
        return f"{self.text}, of {self.path}"


def find_teachers(
    config: SearchConfig, known: Mapping[str, Any] | None = None
) -> Iterator[FoundTeacher]:
    """Reads what the teacher's checkpoints say, and checks that they suit the images.

    Args:
        config: The config of the search.
        known: The paths of checkpoints that the run has already, which are passed over.

    Raises:
        InputError: A checkpoint cannot be found or read, or has other classes.
    """
    new = [path for path in config.train.distillation.teacher if str(path) not in (known or {})]
    if not new:
        return
    from sgformer.data.image_folder import read_image_folder

    classes = read_image_folder(config.train.data).classes
    for path in new:
        try:
            yield _find(path, classes, extends=config.train.extension.is_used)
        except (CheckpointError, ConfigError) as error:
            raise type(error)(f"{SETTING}: {error}") from None


def keep_teachers(config: SearchConfig, run: RunFolder, note: Callable[[str], None]) -> None:
    """Copies the teacher's checkpoints to the run's folder, unless it has them.

    Raises:
        InputError: See `find_teachers`.
    """
    index = read_index(run)
    for found in find_teachers(config, known=index):
        with noticing_full_disk(run.path):
            index[str(found.path)] = _copy(run, found)
            write_index(run, index)
        note(f"the teacher is {found.in_words()}")


def teachers_of(run: RunFolder, train: TrainConfig) -> "tuple[StoredWeights, ...]":
    """The run's copies of the teacher's checkpoints; empty if a training has none.

    Raises:
        RunError: The run has no such copy.
    """
    if not train.distillation.is_used:
        return ()
    return tuple(stored_weights(run, str(path)) for path in train.distillation.teacher)


def base_of(run: RunFolder, train: TrainConfig) -> "StoredWeights | None":
    """The run's copy of the model that a training extends; None: it extends none.

    Raises:
        RunError: The run has no such copy.
    """
    base = train.extension.base
    return None if base is None else stored_weights(run, str(base))


def _find(path: Path, classes: tuple[str, ...], *, extends: bool) -> FoundTeacher:
    from sgformer.export.architecture_costs import num_parameters
    from sgformer.model.weight_files import file_of
    from sgformer.training.teacher import check_classes, check_input
    from sgformer.training.trained_model import read_trained

    file = file_of(path)
    configs, known = read_trained(file)
    check_classes(known, classes, path, extends=extends)
    check_input(configs, path)
    size = sum(num_parameters(config, len(known)) for config in configs) / 1e6
    names = " + ".join(config.model.name for config in configs)
    return FoundTeacher(path, file, f"{names}, {size:.2f} M parameters")


def _copy(run: RunFolder, teacher: FoundTeacher) -> dict[str, Any]:
    """Copies a teacher's checkpoint to a file named after its content; returns its entry."""
    folder = weights_folder(run)
    folder.mkdir(exist_ok=True)
    temporary = folder / f".{os.getpid()}.tmp"
    try:
        shutil.copyfile(teacher.file, temporary)
        digest = digest_of(temporary)
        path = folder / f"teacher-{digest[:NUM_DIGITS]}.safetensors"
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return {
        "source": str(teacher.path),
        "file": path.name,
        "sha256": digest,
        "checkpoint": str(teacher.path),
        "origin_sha256": digest,
        "loaded": teacher.text,
        "setting": SETTING,
    }
