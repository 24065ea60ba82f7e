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
from sgformer.sources.found_images import FoundImages, check_class
from sgformer.sources.image_files import OF_UNLABELLED, Found, ImageFiles, Passed
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
    images, passed = FoundImages(), Passed()
    time = file.stat().st_mtime_ns
    for where, path, label, split in _rows_of(file):
        if not label:
            passed.add(OF_UNLABELLED, path)
        elif split in splits:
            images.add(split, check_class(label, where), path)
            if len(images) % TOLD_EVERY == 0:
                found(len(images))
    source = source_of(file, images.names)
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        sizes, times = look_at([source.where(name) for name in images.names], pool)
    images.look_at(sizes.tolist(), times.tolist())
    found(len(images))
    return images.as_files({"": time}, passed)


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
    columns = [(name, "") for name in (PATH, LABEL, SPLIT)[: 2 + has_split]]
    for number, (path, label, *split) in enumerate(read_columns(file, columns), 1):
        where = f"row {number} of {file}"
        if not path or not isinstance(path, str):
            raise DataError(f"{where} has no path, but {path!r}")
        own_split = as_split(split[0], where) if has_split else "train"
        yield where, path, as_class(label, names, where), own_split
