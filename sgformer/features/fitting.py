"""Fits the columns of a table to the train images: which categories there are."""

from collections.abc import Callable, Mapping
from typing import Final

from sgformer.errors import DataError
from sgformer.features.columns import TEXT, Column, FeatureColumns, Rows
from sgformer.features.encoders import TextEncoder
from sgformer.features.table import FeatureTable

MOST_CATEGORIES: Final = 1000
MOST_NUMBERS: Final = 2**14  # of a vector


def fitted_columns(
    table: FeatureTable, is_train: Callable[[str], bool], encoder: TextEncoder | None
) -> FeatureColumns:
    """The columns of a table; categories are those of the train images alone.

    Args:
        table: The table.
        is_train: Whether a name in the table is that of a train image.
        encoder: Encodes the column `text`; None: its values are categories.

    Raises:
        DataError: The table cannot be read, has no `text` for the encoder, or a column has too
            many categories.
    """
    kinds = table.kinds
    if encoder is not None and kinds.get(TEXT) != "text":
        raise DataError(
            f"{table.file} has no column {TEXT!r} of text, which data.text_encoder reads; its "
            f"columns: {', '.join(kinds)}"
        )
    texts = {n for n, k in kinds.items() if k == "text" and (encoder is None or n != TEXT)}
    categories = _categories(table, texts, is_train)
    first = next(table.parts(), None)
    if first is None:
        raise DataError(f"{table.file} has no rows")
    columns = tuple(_column(name, first, categories, encoder) for name in kinds)
    found = FeatureColumns(columns, None if encoder is None else encoder.name)
    if found.size > MOST_NUMBERS:
        raise DataError(
            f"{table.file} makes {found.size} numbers an image; at most {MOST_NUMBERS} are taken"
        )
    return found


def _column(
    name: str, first: Rows, categories: Mapping[str, set[str]], encoder: TextEncoder | None
) -> Column:
    if name in categories:
        found = tuple(sorted(categories[name]))
        return Column(name, "category", len(found), found)
    values = first.values[name]
    if isinstance(values, list):
        assert encoder is not None, "a text without an encoder is a category"
        return Column(name, "text", encoder.size)
    if values.ndim == 1:
        return Column(name, "number", 1)
    return Column(name, "vector", values.shape[1])


def _categories(
    table: FeatureTable, columns: set[str], is_train: Callable[[str], bool]
) -> dict[str, set[str]]:
    """The values of columns of text in the rows of train images."""
    found: dict[str, set[str]] = {name: set() for name in columns}
    if not columns:
        return found
    for rows in table.parts(sorted(columns)):
        trains = [is_train(name) for name in rows.names]
        for name, values in found.items():
            own = zip(rows.values[name], trains, strict=True)
            values.update(value for value, train in own if train)
            if len(values) > MOST_CATEGORIES:
                raise DataError(
                    f"{table.file}: {name!r} has over {MOST_CATEGORIES} different texts; at most "
                    f"so many are categories: leave it out, or name it {TEXT!r} and set "
                    "data.text_encoder (--texts)"
                )
    return found
