"""Finds the file of a model that is to be served, notices a new one, and copies it."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpo.model_files import ModelFiles
from hpo.run_folder import RunFolder
from sgformer.errors import InputError

NAME: Final = re.compile(r"[\w.-]{1,100}", re.ASCII)

Signature = tuple[int, int, int]


@dataclass(frozen=True)
class ModelFile:
    """A model's name and its file, which a later delivery may replace."""

    name: str
    path: Path

    def signature(self) -> Signature | None:
        """What differs when the file is another one; None: there is no file just now."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def copy_to(self, folder: Path) -> Path:
        """A copy of the file as it is now, with what it keeps in files beside it.

        Replicas read the copy, so that those that start later have the same model.

        Raises:
            InputError: The file cannot be read.
        """
        folder.mkdir(parents=True)
        try:
            for path in self.path.parent.glob(f"{self.path.name}*"):
                if path.is_file():
                    shutil.copyfile(path, folder / path.name)
        except OSError as error:
            raise InputError(f"cannot copy {error.filename}: {error.strerror}") from None
        return folder / self.path.name


def find_models(texts: Sequence[str]) -> list[ModelFile]:
    """The models that are named on the command line.

    Each is a run's folder, its best/, or an exported file, and may be preceded by NAME=. Without
    a name, a run's name is taken, or that of the file.

    Raises:
        InputError: There is no such file, or two models have the same name.
    """
    models = [_find_model(text) for text in texts]
    names = [model.name for model in models]
    for model in models:
        if names.count(model.name) > 1:
            raise InputError(
                f"two models are named {model.name!r}; name them by NAME=PATH (MODEL)"
            )
    return models


def _find_model(text: str) -> ModelFile:
    name, equals, path = text.partition("=")
    # A path may hold an equals sign, too.
    if not equals or Path(text).exists() or not NAME.fullmatch(name):
        name, path = "", text
    file = _file_of(Path(path))
    if not file.is_file():
        raise InputError(
            f"no model at {path}; expected a run's folder, its best/, or an exported model.onnx, "
            "as PATH or NAME=PATH (MODEL)"
        )
    return ModelFile(name or _name_of(file), file)


def _file_of(path: Path) -> Path:
    if not path.is_dir():
        return path
    best = RunFolder(path).best
    return ModelFiles(best if best.is_dir() else path).onnx


def _name_of(file: Path) -> str:
    """best/model.onnx has the run's name, another file its own."""
    path = file.absolute()
    name = path.parent.parent.name if path.parent.name == "best" else path.stem
    if not NAME.fullmatch(name):
        raise InputError(
            f"{name!r} is no name for a model: letters, digits and . _ - are; give one by "
            f"NAME={file} (MODEL)"
        )
    return name
