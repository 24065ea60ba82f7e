"""Finds the features of image files in a table, for a model that takes them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sgformer.errors import DataError, InputError, listed

if TYPE_CHECKING:
    from sgformer.export.onnx_classifier import ExportedModel
    from sgformer.features.columns import FloatArray


def features_of_files(
    classifier: "ExportedModel", table: Path, files: Sequence[Path], note: Callable[[str], None]
) -> "dict[Path, FloatArray]":
    """The features (size,) of those files that the table names.

    A path in the table is as the file was named, or the end of that, such as 'train/cat/1.png' of
    '/data/train/cat/1.png'.

    Args:
        classifier: The model.
        table: The table.
        files: The image files.
        note: Is told of files without features.

    Raises:
        InputError: The model takes images alone, or the table cannot be read, names a file twice
            or none, or has the end of several files.
    """
    from sgformer.features.encoders import encoder_of_model
    from sgformer.features.table import FeatureTable

    columns = classifier.columns
    if columns is None:
        raise InputError(f"--features: the model takes images alone; leave {table} out")
    encoder = None if columns.encoder is None else encoder_of_model(columns.encoder)
    by_end = _by_end(files)
    found: dict[Path, FloatArray] = {}
    for rows in FeatureTable(table).parts([one.name for one in columns.columns]):
        vectors = columns.encoded(rows, encoder)
        for name, vector in zip(rows.names, vectors, strict=True):
            file = _file_of(name, by_end, table)
            if file is None:
                continue
            if file in found:
                raise DataError(f"{table} has image {name!r} twice; leave one row out")
            found[file] = vector
    lacking = [str(file) for file in files if file not in found]
    if len(lacking) == len(files):
        raise DataError(
            f"{table} names none of the images {listed(lacking)}; its paths are as given here, or "
            "their ends"
        )
    if lacking:
        note(f"{len(lacking)} images have no features in {table}: {listed(lacking)}")
    return found


def _file_of(
    name: str, by_end: Mapping[tuple[str, ...], Sequence[Path]], table: Path
) -> Path | None:
    """The file that a path in the table names; raises DataError if it may be one of several."""
    meant = by_end.get(Path(name).parts, [])
    if Path(name) in meant:
        return Path(name)
    if len(meant) > 1:
        raise DataError(
            f"{table}: {name!r} is the end of {listed(map(str, meant))}; give whole paths"
        )
    return next(iter(meant), None)


def _by_end(files: Sequence[Path]) -> dict[tuple[str, ...], list[Path]]:
    """The files by each end of their paths."""
    found: dict[tuple[str, ...], list[Path]] = {}
    for file in dict.fromkeys(files):
        for start in range(len(file.parts)):
            found.setdefault(file.parts[start:], []).append(file)
    return found
