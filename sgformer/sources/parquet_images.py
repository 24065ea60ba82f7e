"""Lists images whose bytes are in parquet files, as Hugging Face's `imagefolder` writes them.

Bytes are not read for it: only labels and names of files.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath

from sgformer.sources.columns import (
    PARQUET,
    SPLIT,
    as_class,
    as_split,
    class_names,
    has_paths,
    image_column,
    label_column,
    read_columns,
    schema_of,
)
from sgformer.sources.folder_scan import packed_files, times_of_packed
from sgformer.sources.found_images import FoundImages, check_class
from sgformer.sources.image_files import OF_UNLABELLED, Found, ImageFiles, Passed


def find_parquet(root: Path) -> dict[str, tuple[str, ...]]:
    """A folder's parquet files by split; see `packed_files`."""
    return packed_files(root, PARQUET)


def scan_parquet(root: Path, splits: Sequence[str], found: Found) -> ImageFiles:
    """The images in the parquet files of those of the splits that exist.

    Args:
        root: A folder of parquet files; or one file, whose images are train images unless a
            column `split` says otherwise.
        splits: Names of splits.
        found: Is told how many images have been found so far.

    Raises:
        DataError: A file is damaged, or has no column of images or labels.
        OSError: A folder or file cannot be read.
    """
    of_split = {"": ("",)} if root.is_file() else find_parquet(root)
    wanted = {split: own for split, own in of_split.items() if split in ("", *splits)}
    images, passed = FoundImages(sum(wanted.values(), ())), Passed()
    times = {} if root.is_file() else times_of_packed(root)
    for split, names in wanted.items():
        for name in names:
            file = root / name  # the empty name is that of the root
            status = file.stat()
            times[name] = status.st_mtime_ns
            for row, (image, label, own_split) in enumerate(_rows_of(file, split)):
                if not label:
                    passed.add(OF_UNLABELLED, f"{name}/{image}")
                elif own_split in splits:
                    images.add_stored(
                        own_split, check_class(label, f"row {row} of {file}"), image,
                        container=name, place=row, size=status.st_size, time=status.st_mtime_ns,
                    )  # fmt: skip
            found(len(images))
    return images.as_files(times, passed)


def splits_of_parquet(root: Path) -> frozenset[str]:
    """The splits that a folder of parquet files, or a file, has."""
    if root.is_file():
        return frozenset(split for _, _, split in _rows_of(root, ""))
    return frozenset(find_parquet(root))


def _rows_of(file: Path, split: str) -> Iterator[tuple[str, str, str]]:
    """Each row: the image's name in the file, its class (empty if it has none) and split."""
    schema = schema_of(file)
    images, labels = image_column(schema, file), label_column(schema, file)
    has_path, has_split = has_paths(schema, images), not split and SPLIT in schema.names
    columns = [(labels, "")]
    columns += [(images, "path")] if has_path else []
    columns += [(SPLIT, "")] if has_split else []
    names = class_names(schema, labels)
    for row, (label, *others) in enumerate(read_columns(file, columns)):
        where = f"row {row} of {file}"
        own_split = as_split(others[-1], where) if has_split else split or "train"
        path = others[0] if has_path else None
        # The number keeps names apart, and the path tells the format.
        image = f"{row:08d}" + (f"-{PurePath(path).name}" if path else "")
        yield image, as_class(label, names, where), own_split
