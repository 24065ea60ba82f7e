"""Lists the images of a data set of any kind: folder, tar shards, manifest, parquet files."""

from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Final

from sgformer.errors import DataError
from sgformer.sources.columns import CSV, PARQUET, image_columns, schema_of
from sgformer.sources.folder_scan import has_class_folders, scan
from sgformer.sources.image_files import SPLITS, Found, ImageFiles, not_told
from sgformer.sources.manifest import scan_manifest, splits_of_manifest
from sgformer.sources.parquet_images import find_parquet, scan_parquet, splits_of_parquet
from sgformer.sources.shards import find_shards, scan_shards


class Kind(StrEnum):
    """What a data set consists of."""

    FOLDER = "class folders"
    SHARDS = "tar shards"
    MANIFEST = "a manifest"
    PARQUET = "parquet files"


_SCANS: Final[dict[Kind, Callable[[Path, Sequence[str], Found], ImageFiles]]] = {
    Kind.FOLDER: scan,
    Kind.SHARDS: scan_shards,
    Kind.MANIFEST: scan_manifest,
    Kind.PARQUET: scan_parquet,
}


def kind_of(root: Path) -> Kind:
    """What a data set consists of.

    Raises:
        DataError: It is a file of another kind, or a folder of shards and of parquet files.
        OSError: It cannot be read.
    """
    suffix = root.suffix.lower()
    if root.is_file():
        if suffix not in (CSV, PARQUET):
            raise DataError(
                f"neither a folder nor a {CSV} or {PARQUET} file: {root} (--data-dir, or "
                "train.data.data_dir)"
            )
        has_images = suffix == PARQUET and image_columns(schema_of(root))
        return Kind.PARQUET if has_images else Kind.MANIFEST
    if has_class_folders(root):  # what else lies there may be what they were unpacked from
        return Kind.FOLDER
    shards, parquet = find_shards(root), find_parquet(root)
    if shards and parquet:
        raise DataError(f"{root} has tar shards and parquet files; name a folder of one kind")
    return Kind.SHARDS if shards else Kind.PARQUET if parquet else Kind.FOLDER


def scan_images(root: Path, splits: Sequence[str], found: Found = not_told) -> ImageFiles:
    """The images of those of the splits that exist.

    Args:
        root: A folder of class folders, tar shards or parquet files; or a CSV or parquet file.
        splits: Names of splits.
        found: Is told how many images have been found so far.

    Raises:
        DataError: A file that lists or holds images cannot be used.
        OSError: A folder or file cannot be read.
    """
    return _SCANS[kind_of(root)](root, splits, found)


def splits_in(root: Path) -> tuple[str, ...]:
    """The splits of a data set.

    Raises:
        DataError: See `scan_images`.
        OSError: A folder or file cannot be read.
    """
    match kind_of(root):
        case Kind.SHARDS:
            found = frozenset(find_shards(root))
        case Kind.MANIFEST:
            found = splits_of_manifest(root)
        case Kind.PARQUET:
            found = splits_of_parquet(root)
        case _:
            found = frozenset(split for split in SPLITS if (root / split).is_dir())
    return tuple(split for split in SPLITS if split in found)
