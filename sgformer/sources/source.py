"""Reads the bytes of a set's images, wherever they lie."""

import bisect
import contextlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

from sgformer.sources.columns import PARQUET
from sgformer.sources.image_files import Places
from sgformer.sources.parquet_rows import ParquetRows

GROUPS_OF_SPREAD: Final = 20  # row groups that stand for all of a set


class ImageSource(Protocol):
    """The images of a set, by the names that a listing gives them; threads may share one.

    Attributes:
        root: The folder, manifest or parquet file.
    """

    root: Path

    def read(self, name: str, most: int | None = None) -> bytes:
        """The bytes of an image, or the first `most` of them; none if they cannot be read."""

    def where(self, name: str) -> str:
        """Where an image lies: its path, or the path of its file and its place in that."""

    def in_reading_order(self, names: Sequence[str]) -> list[str]:
        """The images so ordered that they are read fast; otherwise as they are."""

    def spread(self, names: Sequence[str], most: int) -> list[str]:
        """At most so many of the images, evenly spread, and such that are read fast."""


def source_of(root: Path, names: Sequence[str], places: Places | None = None) -> ImageSource:
    """The source of a set's images.

    Args:
        root: The folder, manifest or parquet file.
        names: The images' names, sorted.
        places: Where they lie; None: each is a file of its own.
    """
    if places is None:
        return _OwnFiles(root)
    is_parquet = (places.containers[0] or root.name).lower().endswith(PARQUET)
    return _Rows(root, names, places) if is_parquet else _Members(root, names, places)


def read_content(path: Path | str, most: int | None = None) -> bytes:
    """The file's bytes, or the first `most`; none if it cannot be read, or is no regular file."""
    with contextlib.suppress(OSError):
        path = Path(path)
        if stat.S_ISREG(path.stat().st_mode):  # reading from a pipe would never end
            with path.open("rb") as file:
                return file.read(most)
    return b""


class _AnyOrder:
    """Images of which each is read by itself, in any order."""

    def in_reading_order(self, names: Sequence[str]) -> list[str]:
        return list(names)

    def spread(self, names: Sequence[str], most: int) -> list[str]:
        return list(names[:: max(1, -(-len(names) // most))])


class _OwnFiles(_AnyOrder):
    """Images that are files of their own, in a folder or in a manifest."""

    def __init__(self, root: Path) -> None:
        self.root = root
        # A manifest's path that is not absolute begins at the folder of the manifest.
        self._base = root.parent if root.is_file() else None

    def read(self, name: str, most: int | None = None) -> bytes:
        return read_content(self.where(name), most)

    def where(self, name: str) -> str:
        if self._base is None:
            return f"{self.root}/{name}"
        return os.path.join(self._base, name.split("/", 2)[2])  # noqa: PTH118  faster than Path


class _Stored:
    """Images that are stored together in files."""

    def __init__(self, root: Path, names: Sequence[str], places: Places) -> None:
        self.root = root
        self._names, self._containers, self._where = names, places.containers, places.where

    def _place(self, name: str) -> tuple[str, int, int]:
        """The file that holds an image, the image's place there, and its bytes."""
        where = self._where[bisect.bisect_left(self._names, name)]
        container, place, length = where.tolist()
        # The empty path is that of the root, a parquet file.
        return str(self.root / self._containers[container]), place, length

    def _image(self, name: str) -> str:
        """The image's name in its file."""
        container = self._containers[int(self._where[bisect.bisect_left(self._names, name), 0])]
        return name.split("/", 2)[2].removeprefix(f"{container}/")


class _Members(_AnyOrder, _Stored):
    """Images in tar files, which can be read at any place."""

    def read(self, name: str, most: int | None = None) -> bytes:
        path, offset, length = self._place(name)
        length = length if most is None else min(length, most)
        try:
            file = os.open(path, os.O_RDONLY)
        except OSError:
            return b""
        try:
            content = os.pread(file, length, offset)
        except OSError:
            return b""
        finally:
            os.close(file)
        return content if len(content) == length else b""

    def where(self, name: str) -> str:
        return f"{self._place(name)[0]}: {self._image(name)!r}"


class _Rows(_Stored):
    """Images in parquet files, which are read a row group at a time."""

    def __init__(self, root: Path, names: Sequence[str], places: Places) -> None:
        super().__init__(root, names, places)
        self._rows = ParquetRows()

    def read(self, name: str, most: int | None = None) -> bytes:
        path, row, _ = self._place(name)
        return self._rows.read(path, row)[:most]

    def where(self, name: str) -> str:
        path, row, _ = self._place(name)
        return f"{path}: row {row}"

    def in_reading_order(self, names: Sequence[str]) -> list[str]:
        """One row group after another, in the order in which their first images come."""
        return [name for group in self._by_group(names).values() for _, name in sorted(group)]

    def spread(self, names: Sequence[str], most: int) -> list[str]:
        """Images of a few row groups."""
        groups = [group for _, group in sorted(self._by_group(names).items())]
        some = groups[:: max(1, len(groups) // GROUPS_OF_SPREAD)]
        found = [name for group in some for _, name in sorted(group)]
        return found[:: max(1, -(-len(found) // most))]

    def _by_group(self, names: Sequence[str]) -> dict[tuple[str, int], list[tuple[int, str]]]:
        """Rows and names of the images by file and row group."""
        groups: dict[tuple[str, int], list[tuple[int, str]]] = {}
        for name in names:
            path, row, _ = self._place(name)
            groups.setdefault((path, self._rows.group_of(path, row)), []).append((row, name))
        return groups
