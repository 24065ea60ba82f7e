"""Finds the features of image files in a table, for a model that takes them."""

from collections.abc import Callable, Sequence
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

    A path in the table is as the file was named, or begins at the table's folder.

    Args:
        classifier: The model.
        table: The table.
        files: The image files.
        note: Is told of files without features.

    Raises:
        InputError: The model takes images alone, or the table cannot be read, names a file twice,
            or names none.
    """
    from sgformer.features.encoders import encoder_of
    from sgformer.features.table import FeatureTable

    columns = classifier.columns
    if columns is None:
        raise InputError(f"--features: the model takes images alone; leave {table} out")
    encoder = None if columns.encoder is None else encoder_of(columns.encoder)
    by_name = {str(file): file for file in files}
    by_place = {file.absolute().resolve(): file for file in files}
    found: dict[Path, FloatArray] = {}
    for rows in FeatureTable(table).parts([one.name for one in columns.columns]):
        vectors = columns.encoded(rows, encoder)
        for name, vector in zip(rows.names, vectors, strict=True):
            file = by_name.get(name) or by_place.get((table.parent / name).absolute().resolve())
            if file is None:
                continue
            if file in found:
                raise DataError(f"{table} has image {name!r} twice; leave one row out")
            found[file] = vector
    lacking = [str(file) for file in files if file not in found]
    if len(lacking) == len(files):
        raise DataError(
            f"{table} names none of the images {listed(lacking)}; its paths are as given here, or "
            "begin at its folder"
        )
    if lacking:
        note(f"{len(lacking)} images have no features in {table}: {listed(lacking)}")
    return found
