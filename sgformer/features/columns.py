"""What each column of a table of features becomes in the vector that a model takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

import numpy as np
import numpy.typing as npt

from sgformer.errors import DataError, listed
from sgformer.features.encoders import TextEncoder

Kind = Literal["number", "vector", "category", "text"]
FloatArray = npt.NDArray[np.float32]
METADATA_KEY: Final = "features"
TEXT: Final = "text"  # the column that an encoder reads


@dataclass(frozen=True)
class Rows:
    """Rows of a table.

    Attributes:
        names: The images' names, as the table has them, (N,).
        values: By column: numbers (N,), vectors (N, size) or a list of N texts.
        where: The file, for messages.
    """

    names: Sequence[str]
    values: Mapping[str, Any]
    where: str


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: Its name.
        kind: A number is taken as it is, a vector too; a category becomes a 1 at its own place
            among zeros; a text is encoded.
        size: How many numbers of the vector are the column's.
        categories: The categories of the train images, in order; others become zeros.
    """

    name: str
    kind: Kind
    size: int
    categories: tuple[str, ...] = ()


@dataclass(frozen=True)
class FeatureColumns:
    """The columns of a table in the order of the vector.

    Attributes:
        columns: The columns.
        encoder: The name of the texts' encoder; None: there are no texts.
    """

    columns: tuple[Column, ...]
    encoder: str | None = None

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> Self | None:
        """The columns that a model's metadata tell; None: the model takes images alone."""
        values = metadata.get(METADATA_KEY)
        if values is None:
            return None
        columns = (one | {"categories": tuple(one["categories"])} for one in values["columns"])
        return cls(tuple(Column(**one) for one in columns), values["encoder"])

    def as_metadata(self) -> dict[str, Any]:
        """The columns as plain values, without a path."""
        columns = [vars(one) | {"categories": list(one.categories)} for one in self.columns]
        return {METADATA_KEY: {"columns": columns, "encoder": self.encoder}}

    @property
    def size(self) -> int:
        """Numbers of the vector."""
        return sum(column.size for column in self.columns)

    def in_words(self) -> str:
        """The columns as text, such as 'price (number), colour (3 categories)'."""
        return ", ".join(f"{one.name} ({_in_words(one)})" for one in self.columns)

    def encoded(self, rows: Rows, encoder: TextEncoder | None = None) -> FloatArray:
        """The vectors (N, size) of rows.

        Raises:
            DataError: A column is missing, a value is of another type or no finite number, or a
                vector has another length.
        """
        missing = [one.name for one in self.columns if one.name not in rows.values]
        if missing:
            raise DataError(
                f"{rows.where} lacks {listed(missing)}; the model takes {self.in_words()}"
            )
        parts = [_encoded(one, rows, encoder) for one in self.columns]
        vectors = np.concatenate(parts, axis=1, dtype=np.float32, casting="same_kind")
        self._check_finite(vectors, rows)
        return vectors

    def encoded_values(self, values: object, encoder: TextEncoder | None = None) -> FloatArray:
        """The vector (size,) of one image, from a mapping by column or from all its numbers.

        Raises:
            DataError: See `encoded`; or the values are neither, or name an unknown column.
        """
        where = "features"
        if isinstance(values, Mapping):
            unknown = sorted(map(str, values.keys() - {one.name for one in self.columns}))
            if unknown:
                raise DataError(
                    f"features: unknown {listed(unknown)}; the model takes {self.in_words()}"
                )
            rows = {n: [v] if isinstance(v, str) else _numbers(n, v) for n, v in values.items()}
            return np.ravel(self.encoded(Rows(["the request"], rows, where), encoder))
        if not isinstance(values, list):
            raise DataError(
                f"features: takes an object by column, or a list of {self.size} numbers, got "
                f"{type(values).__name__}"
            )
        numbers = _numbers("features", values)[0]
        if numbers.shape != (self.size,):
            raise DataError(
                f"features: has {numbers.size} numbers; the model takes {self.size}: "
                f"{self.in_words()}"
            )
        vector: FloatArray = numbers.astype(np.float32)
        if not np.isfinite(vector).all():
            raise DataError("features: has a value that is no finite number")
        return vector

    def _check_finite(self, vectors: FloatArray, rows: Rows) -> None:
        """Raises DataError for a value that is no finite number in float32."""
        wrong = np.argwhere(~np.isfinite(vectors))
        if not len(wrong):
            return
        row, place = (int(i) for i in wrong[0])
        ends = np.cumsum([one.size for one in self.columns])
        column = self.columns[int(np.searchsorted(ends, place, side="right"))]
        raise DataError(
            f"{rows.where}: {column.name!r} of {rows.names[row]!r} is {vectors[row, place]}, no "
            "finite number; fill it, or leave the row out: the image then has no features"
        )


def _numbers(name: str, value: object) -> npt.NDArray[np.float64]:
    """A number, or a list of them, as a row (1, ...); raises DataError if it is neither."""
    try:
        return np.array([value], np.float64)
    except (TypeError, ValueError, OverflowError):
        raise DataError(
            f"features: {name!r} is neither a number, a list of them nor text"
        ) from None


def _in_words(column: Column) -> str:
    if column.kind == "category":
        return f"{len(column.categories)} categories"
    return "number" if column.kind == "number" else f"{column.kind} of {column.size}"


def _encoded(column: Column, rows: Rows, encoder: TextEncoder | None) -> npt.NDArray[Any]:
    """A column's part of the vectors, (N, size)."""
    values, num = rows.values[column.name], len(rows.names)
    if column.kind in {"category", TEXT}:
        if not isinstance(values, list):
            raise DataError(f"{rows.where}: {column.name!r} has numbers; the model takes text")
        if column.kind == "category":
            return _one_hot(values, column.categories)
        assert encoder is not None, "a column of texts has an encoder"
        return encoder.encode(values)
    if isinstance(values, list):
        raise DataError(f"{rows.where}: {column.name!r} has text; the model takes numbers")
    numbers = np.asarray(values).reshape(num, -1)
    if numbers.shape[1] != column.size:
        raise DataError(
            f"{rows.where}: {column.name!r} has {numbers.shape[1]} numbers a row; the model takes "
            f"{column.size}"
        )
    with np.errstate(over="ignore"):  # becomes infinite, which is refused by name
        return numbers.astype(np.float32)


def _one_hot(values: Sequence[str], categories: Sequence[str]) -> FloatArray:
    place = {name: i for i, name in enumerate(categories)}
    vectors = np.zeros((len(values), len(categories)), np.float32)
    known = [(row, place[value]) for row, value in enumerate(values) if value in place]
    if known:
        vectors[tuple(np.array(known).T)] = 1
    return vectors
