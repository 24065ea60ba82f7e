"""Lists the images that a CSV or parquet file names, in columns `path`, `label` and `split`."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from sgformer.errors import DataError
from sgformer.sources.columns import (
    LABEL,
    PATH,
    SPLIT,
    as_class,
    as_split,
    class_names,
    read_columns,
    schema_of,
)
from sgformer.sources.folder_scan import NUM_THREADS, look_at
from sgformer.sources.image_files import OF_UNLABELLED, Found, ImageFiles, Passed
from sgformer.sources.rows import Rows, check_class
from sgformer.sources.source import source_of

TOLD_EVERY: Final = 10_000  # rows


def scan_manifest(file: Path, splits: Sequence[str], found: Found) -> ImageFiles:
    """The images of those of the splits that the manifest has.

    A path begins at the manifest's folder unless it is absolute. A CSV file's labels are text, so
    "01" stays "01". Without a column `split` all images are train images.

    Raises:
        DataError: The manifest cannot be read, lacks a column, or names an unknown split.
        OSError: The manifest or an image cannot be looked at.
    """
    rows, passed, present = Rows(), Passed(), set[str]()
    time = file.stat().st_mtime_ns
    for where, path, label, split in _rows_of(file):
        present.add(split)
        if not label:
            passed.add(OF_UNLABELLED, path)
        elif split in splits:
            rows.add(split, check_class(label, where), path)
        if len(rows) % TOLD_EVERY == 0:
            found(len(rows))
    source = source_of(file, rows.names)
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        sizes, times = look_at([source.where(name) for name in rows.names], pool)
    rows.look_at(sizes.tolist(), times.tolist())
    found(len(rows))
    return rows.as_files([split for split in splits if split in present], {"": time}, passed)


def splits_of_manifest(file: Path) -> frozenset[str]:
    """The splits that a manifest names; see `scan_manifest`."""
    return frozenset(split for _, _, _, split in _rows_of(file))


def _rows_of(file: Path) -> Iterator[tuple[str, str, str, str]]:
    """Each row: its place for messages, its path, class (empty if it has none) and split."""
    schema = schema_of(file)
    missing = [name for name in (PATH, LABEL) if name not in schema.names]
    if missing:
        raise DataError(
            f"{file} has no column {missing[0]!r}; a manifest has path, label and split; its "
            f"columns: {', '.join(schema.names)}"
        )
    has_split, names = SPLIT in schema.names, class_names(schema, LABEL)
    columns = [PATH, LABEL, *([SPLIT] if has_split else [])]
    for number, (path, label, *split) in enumerate(read_columns(file, columns), 1):
        where = f"row {number} of {file}"
        if not path:
            raise DataError(f"{where} has no path")
        own_split = as_split(split[0], where) if has_split else "train"
        yield where, str(path), as_class(label, names), own_split
