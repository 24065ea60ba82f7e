"""Classifies image files, batch by batch."""

import glob
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sgformer.cpus import usable_cpus
from sgformer.errors import DataError, InputError
from sgformer.sources.image_files import SUFFIXES, is_hidden

if TYPE_CHECKING:
    from sgformer.export.onnx_classifier import (
        ExportedModel,
        ModelImage,
        OnnxClassifier,
        Prediction,
    )
    from sgformer.features.columns import FloatArray

    FeaturesOf = Callable[[Path], FloatArray | None]

BATCH_SIZE: Final = 32
STANDARD_INPUT: Final = "-"


def image_files(places: Sequence[str], names: Iterable[str]) -> list[Path]:
    """The image files that are meant, in order; each folder and pattern by name.

    Args:
        places: Files; folders, of which all images are taken but hidden ones; patterns with `*`,
            `?` or `[` (`**` means any folders); `-` for `names`.
        names: Names of files, a line each, such as standard input.

    Raises:
        InputError: A folder or pattern has no image.
    """
    return [file for place in places for file in _files_of(place, names)]


def _files_of(place: str, names: Iterable[str]) -> list[Path]:
    if place == STANDARD_INPUT:
        return [Path(line.rstrip("\r\n")) for line in names if line.strip()]
    path = Path(place)
    if path.is_dir():
        found = list(_images_in(path))
        if not found:
            raise InputError(f"no images in {path}; looked for {', '.join(SUFFIXES)}")
        return found
    if path.exists() or not glob.has_magic(place):
        return [path]
    matches = glob.glob(place, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
    found = [Path(match) for match in sorted(matches)]
    if not found:
        raise InputError(f"no file matches {place}")
    return [file for file in found if not file.is_dir()]


def _images_in(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        for name in sorted(files):
            if not is_hidden(name) and name.lower().endswith(SUFFIXES):
                yield Path(parent) / name


def predictions(
    classifier: "ExportedModel",
    files: Sequence[Path],
    unreadable: Callable[[str], None],
    tell: Callable[[int, int], None],
    features_of: "FeaturesOf" = lambda _: None,
) -> "Iterator[tuple[Path, Prediction]]":
    """What a model says of each file that can be read, in order.

    Args:
        classifier: The model.
        files: The files.
        unreadable: Is told of each that is no readable image.
        tell: Is told how many are done, of how many.
        features_of: Returns a file's features; None where it has none.
    """
    from sgformer.export.onnx_classifier import OnnxClassifier

    for start in range(0, len(files), BATCH_SIZE):
        batch = files[start : start + BATCH_SIZE]
        if isinstance(classifier, OnnxClassifier):
            yield from _of_batch(classifier, batch, unreadable, features_of)
        else:
            yield from _one_by_one(classifier, batch, unreadable, features_of)
        tell(start + len(batch), len(files))


def _of_batch(
    classifier: "OnnxClassifier",
    files: Sequence[Path],
    unreadable: Callable[[str], None],
    features_of: "FeaturesOf",
) -> "Iterator[tuple[Path, Prediction]]":
    from sgformer.sources.source import read_content

    def read(file: Path) -> "ModelImage | None":
        try:
            return classifier.read(read_content(file), features_of(file))
        except DataError:
            return None

    with ThreadPoolExecutor(usable_cpus()) as pool:
        images = list(pool.map(read, files))
    readable = [(file, image) for file, image in zip(files, images, strict=True) if image]
    for file, image in zip(files, images, strict=True):
        if image is None:
            unreadable(str(file))
    if readable:
        found = classifier.predictions([image for _, image in readable])
        yield from zip((file for file, _ in readable), found, strict=True)


def _one_by_one(
    classifier: "ExportedModel",
    files: Sequence[Path],
    unreadable: Callable[[str], None],
    features_of: "FeaturesOf",
) -> "Iterator[tuple[Path, Prediction]]":
    for file in files:
        try:
            yield file, classifier.predict(file, features_of(file))
        except DataError:
            unreadable(str(file))
