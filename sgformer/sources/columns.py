"""What the columns of CSV and parquet files hold: images, labels, splits."""

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from sgformer.errors import DataError
from sgformer.sources.image_files import SPLIT_OF

PATH: Final = "path"
IMAGE: Final = "image"
LABEL: Final = "label"
SPLIT: Final = "split"
PARQUET: Final = ".parquet"
CSV: Final = ".csv"
BLOCK_BYTES: Final = 2**26  # of a CSV file, read at a time; a row must fit into it
Schema = Any  # pyarrow.Schema; pyarrow has no types
Column = tuple[str, str]  # a column, and its field if it is a struct
Row = tuple[Any, ...]


@contextlib.contextmanager
def naming_damage(file: Path) -> Iterator[None]:
    """Turns what pyarrow raises for a damaged file into a DataError that names the file."""
    import pyarrow as pa

    try:
        yield
    except OSError as error:
        if error.errno:
            raise OSError(error.errno, os.strerror(error.errno), str(file)) from None
        raise DataError(f"cannot read {file}: {error}") from None
    except (pa.ArrowException, KeyError, ValueError) as error:  # of text, a UnicodeDecodeError
        raise DataError(f"cannot read {file}: {error}") from None


def schema_of(file: Path) -> Schema:
    """The schema of a CSV or parquet file; that of a CSV file has its columns' names only.

    Raises:
        DataError: The file is damaged.
    """
    import pyarrow.csv
    import pyarrow.parquet

    with naming_damage(file):
        if file.suffix.lower() == CSV:
            with _opened_csv(file) as reader:
                schema = reader.schema
        else:
            schema = pyarrow.parquet.read_schema(file)
        names = schema.names  # a header that is no UTF-8 shows here
    twice = [name for name in (PATH, LABEL, SPLIT, IMAGE) if names.count(name) > 1]
    if twice:
        raise DataError(f"{file} has two columns {twice[0]!r}; rename one")
    return schema


def read_columns(file: Path, columns: Sequence[Column]) -> Iterator[Row]:
    """The values of some columns, row by row; of a CSV file as text.

    Args:
        file: A CSV or parquet file.
        columns: Names of columns, and of the field of a struct that is read.

    Raises:
        DataError: The file is damaged.
    """
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    with naming_damage(file):
        if file.suffix.lower() == CSV:
            names = [name for name, _ in columns]
            options = pyarrow.csv.ConvertOptions(
                column_types={name: pa.string() for name in names},
                include_columns=names,
                strings_can_be_null=False,
            )
            batches = _opened_csv(file, options)
        else:
            wanted = [f"{name}.{part}" if part else name for name, part in columns]
            batches = pyarrow.parquet.ParquetFile(file).iter_batches(columns=wanted)
        for batch in batches:
            yield from zip(*(_values(batch, *column) for column in columns), strict=True)


def _values(batch: Any, name: str, part: str) -> list[Any]:
    """The values of a column of a pyarrow.RecordBatch, or of a field of it."""
    values = batch.column(name).to_pylist()
    return [value and value.get(part) for value in values] if part else list(values)


def _opened_csv(file: Path, options: Any = None) -> Any:
    import pyarrow.csv

    return pyarrow.csv.open_csv(
        file,
        read_options=pyarrow.csv.ReadOptions(block_size=BLOCK_BYTES),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=options,
    )


def image_column(schema: Schema, file: Path | str) -> str:
    """The column of images: `image`, or the only one that has bytes.

    Raises:
        DataError: There is none, or there are several.
    """
    return _chosen(IMAGE, image_columns(schema), schema, file)


def image_columns(schema: Schema) -> list[str]:
    """The columns that may hold images: bytes, or structs with a field `bytes`."""
    return [
        field.name for field in schema if _is_bytes(field.type) or _is_bytes(_part(field, "bytes"))
    ]


def has_paths(schema: Schema, column: str) -> bool:
    """Whether a column of images has the name of each image's file, in a field `path`."""
    import pyarrow as pa

    kind = _part(schema.field(column), "path")
    return kind is not None and bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _part(field: Any, name: str) -> Any:
    """The type of a field of a struct; None if there is none."""
    import pyarrow as pa

    index = field.type.get_field_index(name) if pa.types.is_struct(field.type) else -1
    return field.type.field(index).type if index >= 0 else None


def _is_bytes(kind: Any) -> bool:
    import pyarrow as pa

    tests = (
        pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view,
        pa.types.is_fixed_size_binary,
    )  # fmt: skip
    return kind is not None and any(test(kind) for test in tests)


def label_column(schema: Schema, file: Path) -> str:
    """The column of labels: `label`, or the only one that Hugging Face marks as a class label.

    Raises:
        DataError: There is none, or there are several.
    """
    if LABEL in schema.names:
        return LABEL
    marked = [name for name in schema.names if class_names(schema, name)]
    return _chosen(LABEL, marked, schema, file)


def _chosen(name: str, able: Sequence[str], schema: Schema, file: Path | str) -> str:
    """The column of this name, if it can be it, or the only one that can."""
    if name in able:
        return name
    if len(able) != 1:
        raise DataError(
            f"{file} has no column {name!r} that could be used; its columns: "
            f"{', '.join(schema.names)}; name one {name!r}"
        )
    return able[0]


def class_names(schema: Schema, column: str) -> tuple[str, ...]:
    """The names that Hugging Face keeps of a column's numbers; none if it keeps none.

    Source: datasets.Features, written to the schema's metadata under `huggingface`.
    """
    about = (schema.metadata or {}).get(b"huggingface", b"{}")
    try:
        feature = json.loads(about)["info"]["features"][column]
        return tuple(map(str, feature["names"])) if feature["_type"] == "ClassLabel" else ()
    except (ValueError, LookupError, TypeError, RecursionError):
        return ()


def as_class(label: object, names: Sequence[str], where: str) -> str:
    """The class of a label; empty if it has none.

    Args:
        label: Text, a number, or None. Hugging Face marks an image without a class by -1.
        names: The names of numbers; none: a number is its own name.
        where: The row, for the message.

    Raises:
        DataError: The label is a list, a date or the like, or a number that has no name.
    """
    if isinstance(label, float) and label.is_integer():
        label = int(label)  # pandas makes floats of a column of integers with gaps
    if label is None or label != label or (names and label == -1):
        return ""
    if isinstance(label, bytes):
        label = label.decode(errors="backslashreplace")
    if not isinstance(label, str | int | float):
        raise DataError(f"{where} has label {label!r}; a label is text or a number")
    if not names or isinstance(label, str):
        return str(label)
    if not isinstance(label, int) or not 0 <= label < len(names):
        raise DataError(f"{where} has label {label}; the file has names for 0 to {len(names) - 1}")
    return names[label]


def as_split(value: object, where: str) -> str:
    """The split of a row.

    Args:
        value: train, val or test, or another word for one.
        where: The row, for the message.

    Raises:
        DataError: There is no such split.
    """
    split = SPLIT_OF.get(str(value).strip().lower())
    if split is None:
        raise DataError(f"{where} has split {value!r}; allowed: {', '.join(SPLIT_OF)}")
    return split
