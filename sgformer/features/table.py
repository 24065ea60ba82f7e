"""Reads tables of features: CSV, parquet and NumPy's npz files, a part at a time."""

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from sgformer.data_config import DataConfig
from sgformer.errors import DataError, listed
from sgformer.features.columns import Rows
from sgformer.sources.columns import BLOCK_BYTES, CSV, LABEL, PARQUET, PATH, SPLIT, naming_damage

NPZ: Final = ".npz"
SUFFIXES: Final = (CSV, PARQUET, NPZ)
NAMES, VECTORS = "names", "vectors"  # the arrays of an npz file
# Columns of a manifest that tell the class, or are of no use to a model.
PASSED_OVER: Final = (LABEL, SPLIT)
ROWS_AT_A_TIME: Final = 2**14
Stored = Literal["number", "vector", "text"]


@dataclass(frozen=True)
class FeatureTable:
    """A file of features.

    Args:
        file: A CSV or parquet file with a column `path`, or an npz file with the arrays `names`
            and `vectors`.
    """

    file: Path

    @cached_property
    def kinds(self) -> dict[str, Stored]:
        """What each column holds, in the file's order.

        Raises:
            DataError: The file is missing, damaged, of another type, or has no column of use.
        """
        _check(self.file)
        if self._is_npz:
            return {VECTORS: "vector"}
        with naming_damage(self.file):
            schema = self._opened().schema if self._is_csv else _parquet(self.file).schema_arrow
        twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
        if twice:
            raise DataError(f"{self.file} has two columns {twice[0]!r}; rename one")
        if PATH not in schema.names:
            raise DataError(
                f"{self.file} has no column {PATH!r} with the images' names; its columns: "
                f"{listed(schema.names)}"
            )
        own = [field for field in schema if field.name not in (PATH, *PASSED_OVER)]
        if not own:
            raise DataError(f"{self.file} has no column of features beside {listed(schema.names)}")
        return {field.name: _kind_of(field, self.file) for field in own}

    def parts(self, columns: Sequence[str] | None = None) -> Iterator[Rows]:
        """The rows, some thousands at a time.

        Args:
            columns: The columns that are read; None: all.

        Raises:
            DataError: The file is damaged, or a column's values are of several types or lengths.
        """
        kinds = {n: kind for n, kind in self.kinds.items() if columns is None or n in columns}
        if self._is_npz:
            yield from self._of_npz()
            return
        with naming_damage(self.file):
            for batch in self._batches(list(kinds)):
                names = batch.column(PATH).to_pylist()
                values = {n: self._values(batch, n, kind, names) for n, kind in kinds.items()}
                yield Rows(self._named(names), values, str(self.file))

    @property
    def _is_npz(self) -> bool:
        return self.file.suffix.lower() == NPZ

    @property
    def _is_csv(self) -> bool:
        return self.file.suffix.lower() == CSV

    def _batches(self, columns: list[str]) -> Iterator[Any]:
        if self._is_csv:
            for block in self._opened():
                for start in range(0, block.num_rows, ROWS_AT_A_TIME):
                    yield block.slice(start, ROWS_AT_A_TIME)
            return
        yield from _parquet(self.file).iter_batches(ROWS_AT_A_TIME, columns=[PATH, *columns])

    def _opened(self) -> Any:
        import pyarrow as pa
        import pyarrow.csv

        return pyarrow.csv.open_csv(
            self.file,
            read_options=pyarrow.csv.ReadOptions(block_size=BLOCK_BYTES),
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types={PATH: pa.string()}, strings_can_be_null=False
            ),
        )

    def _named(self, names: list[str | None]) -> list[str]:
        if None in names or "" in names:
            raise DataError(f"{self.file} has a row without a {PATH}; name its image")
        return [str(name) for name in names]

    def _values(self, batch: Any, name: str, kind: Stored, names: Sequence[str | None]) -> Any:
        """A column's values: numbers (N,), vectors (N, size) or a list of texts."""
        column = batch.column(name)
        if kind == "text":
            return [value or "" for value in column.to_pylist()]
        if kind == "number":
            return column.cast("float64").to_numpy(zero_copy_only=False)
        vectors = column.to_pylist()
        sizes = [len(vector or ()) for vector in vectors]
        for i, size in enumerate(sizes):
            if size != sizes[0] or not size:
                raise DataError(
                    f"{self.file}: the vector of {names[i]!r} in {name!r} has {size} numbers, "
                    f"that of {names[0]!r} has {sizes[0]}; all vectors need the same length"
                )
        return np.array(vectors, np.float64)

    def _of_npz(self) -> Iterator[Rows]:
        names, vectors = _arrays(self.file)
        for start in range(0, len(names), ROWS_AT_A_TIME):
            part = slice(start, start + ROWS_AT_A_TIME)
            named = self._named(names[part].tolist())
            yield Rows(named, {VECTORS: vectors[part]}, str(self.file))


def check_features(config: DataConfig) -> None:
    """Raises DataError if the table that a config names cannot be used; reads its head only."""
    if config.features is not None:
        FeatureTable(config.features).kinds  # noqa: B018  raises the error


def _check(file: Path) -> None:
    if file.suffix.lower() not in SUFFIXES:
        raise DataError(f"features are read from {', '.join(SUFFIXES)} files, got {file}")
    if not file.is_file():
        raise DataError(f"no such file of features: {file} (--features, or train.data.features)")


def _parquet(file: Path) -> Any:
    import pyarrow.parquet

    return pyarrow.parquet.ParquetFile(file)


def _arrays(file: Path) -> tuple[npt.NDArray[np.str_], npt.NDArray[Any]]:
    """The names (N,) and vectors (N, size) of an npz file; raises DataError if it has none."""
    form = f"an npz file of features has {NAMES} (N,) of text and {VECTORS} (N, size) of numbers"
    try:
        with np.load(file, allow_pickle=False) as arrays:
            names, vectors = arrays[NAMES], arrays[VECTORS]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"cannot read {file}: {error}; {form}") from None
    is_sound = names.dtype.kind == "U" and names.ndim == 1 and vectors.dtype.kind in "fiub"
    if not is_sound or vectors.ndim != 2 or len(names) != len(vectors) or not vectors.size:
        raise DataError(
            f"{file} has {NAMES} {names.dtype}{list(names.shape)} and {VECTORS} "
            f"{vectors.dtype}{list(vectors.shape)}; {form}"
        )
    return names, vectors


def _kind_of(field: Any, file: Path) -> Stored:
    """What a column of pyarrow's type holds; raises DataError if a model cannot take it."""
    import pyarrow.types as are

    kind = field.type.value_type if are.is_dictionary(field.type) else field.type
    if are.is_list(kind) or are.is_large_list(kind) or are.is_fixed_size_list(kind):
        if _is_number(kind.value_type):
            return "vector"
    elif are.is_string(kind) or are.is_large_string(kind):
        return "text"
    elif _is_number(kind):
        return "number"
    raise DataError(
        f"{file}: column {field.name!r} is of type {field.type}; features are numbers, text or "
        "lists of numbers; convert it, or leave it out"
    )


def _is_number(kind: Any) -> bool:
    import pyarrow.types as are

    tests = (are.is_integer, are.is_floating, are.is_boolean, are.is_decimal)
    return any(test(kind) for test in tests)
