"""What the columns of CSV and parquet files hold: images, labels, splits."""

import contextlib
import json
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
Schema = Any  # pyarrow.Schema; pyarrow has no types
Row = tuple[Any, ...]


@contextlib.contextmanager
def naming_damage(file: Path) -> Iterator[None]:
    """Turns what pyarrow raises for a damaged file into a DataError that names the file."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, UnicodeDecodeError) as error:
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
            with pyarrow.csv.open_csv(file, parse_options=_csv_format()) as reader:
                return reader.schema
        return pyarrow.parquet.read_schema(file)


def read_columns(file: Path, columns: Sequence[str]) -> Iterator[Row]:
    """The values of some columns, row by row; of a CSV file as text.

    Args:
        file: A CSV or parquet file.
        columns: Names of columns; of a field in a struct: 'image.path'.

    Raises:
        DataError: The file is damaged.
    """
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    with naming_damage(file):
        if file.suffix.lower() == CSV:
            options = pyarrow.csv.ConvertOptions(
                column_types={name: pa.string() for name in columns},
                include_columns=list(columns),
                strings_can_be_null=False,
            )
            batches = pyarrow.csv.open_csv(
                file, parse_options=_csv_format(), convert_options=options
            )
        else:
            batches = pyarrow.parquet.ParquetFile(file).iter_batches(columns=list(columns))
        for batch in batches:
            found = (batch.column(name.split(".")[0]).to_pylist() for name in columns)
            yield from zip(*found, strict=True)


def _csv_format() -> Any:
    import pyarrow.csv

    return pyarrow.csv.ParseOptions(newlines_in_values=True)


def image_column(schema: Schema, file: Path | str) -> str:
    """The column of images: `image`, or the only one that has bytes.

    Raises:
        DataError: There is none, or there are several.
    """
    able = [field.name for field in schema if _has_bytes(field.type)]
    if IMAGE in able:
        return IMAGE
    if len(able) != 1:
        raise DataError(
            f"{file} has no column {IMAGE!r} with the bytes of images; its columns: "
            f"{', '.join(schema.names)}"
        )
    return str(able[0])


def _has_bytes(kind: Any) -> bool:
    """Whether values of this pyarrow.DataType hold the bytes of an image."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _has_bytes(kind.field(index).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def label_column(schema: Schema, file: Path) -> str:
    """The column of labels: `label`, or the only one that Hugging Face marks as a class label.

    Raises:
        DataError: There is none, or there are several.
    """
    marked = [name for name in schema.names if class_names(schema, name)]
    if LABEL in schema.names:
        return LABEL
    if len(marked) != 1:
        raise DataError(f"{file} has no column {LABEL!r}; its columns: {', '.join(schema.names)}")
    return str(marked[0])


def class_names(schema: Schema, column: str) -> tuple[str, ...]:
    """The names that Hugging Face keeps of a column's numbers; none if it keeps none.

    Source: datasets.Features, written to the schema's metadata under `huggingface`.
    """
    about = (schema.metadata or {}).get(b"huggingface", b"{}")
    try:
        feature = json.loads(about)["info"]["features"][column]
        return tuple(map(str, feature["names"])) if feature["_type"] == "ClassLabel" else ()
    except (ValueError, LookupError, TypeError):
        return ()


def as_class(label: object, names: Sequence[str]) -> str:
    """The class of a label; empty if it has none.

    Args:
        label: Text, a number, or None. Hugging Face marks an image without a class by -1.
        names: The names of numbers; none: a number is its own name.
    """
    if isinstance(label, float) and label.is_integer():
        label = int(label)  # pandas makes floats of a column of integers with gaps
    if label is None or label != label:
        return ""
    if names and isinstance(label, int):
        return names[label] if 0 <= label < len(names) else ""
    return str(label)


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
