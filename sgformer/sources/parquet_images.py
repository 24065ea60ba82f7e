"""Lists images whose bytes are in parquet files, as Hugging Face's `imagefolder` writes them.

Bytes are not read for it: only labels and names of files.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from sgformer.sources.columns import (
    PARQUET,
    SPLIT,
    as_class,
    as_split,
    class_names,
    image_column,
    label_column,
    naming_damage,
    read_columns,
    schema_of,
)
from sgformer.sources.image_files import OF_UNLABELLED, SPLIT_OF, Found, ImageFiles, Passed
from sgformer.sources.rows import Rows, check_class

_NAMED: Final = re.compile(rf"(?:.+[-_.])?({'|'.join(SPLIT_OF)})(?:[-_.].*)?\.parquet", re.I)


def find_parquet(root: Path) -> dict[str, tuple[str, ...]]:
    """A folder's parquet files by split, as paths below it, sorted.

    They are named after their split (`data/train-00000-of-00002.parquet`), or lie in its folder
    (`train/0000.parquet`).

    Raises:
        OSError: A folder cannot be read.
    """
    files: dict[str, list[str]] = {}
    for folder in ("", "data", *SPLIT_OF):
        for path in sorted((root / folder).glob(f"*{PARQUET}")):
            named = _NAMED.fullmatch(path.name)
            split = SPLIT_OF.get(folder) or (SPLIT_OF[named[1].lower()] if named else None)
            if split is not None:
                files.setdefault(split, []).append(path.relative_to(root).as_posix())
    return {split: tuple(own) for split, own in files.items()}


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
    containers = sum(wanted.values(), ())
    rows, passed, present = Rows(containers), Passed(), set[str]()
    times = {"": root.stat().st_mtime_ns}
    for split, names in wanted.items():
        for name in names:
            file = root / name  # the empty name is that of the root
            status = file.stat()
            times[name] = status.st_mtime_ns
            for row, (image, label, own_split) in enumerate(_rows_of(file, split)):
                present.add(own_split)
                if not label:
                    passed.add(OF_UNLABELLED, f"{name}/{image}")
                elif own_split in splits:
                    rows.add_stored(
                        own_split, check_class(label, f"row {row} of {file}"), image,
                        container=name, place=row, size=status.st_size, time=status.st_mtime_ns,
                    )  # fmt: skip
            found(len(rows))
    return rows.as_files([split for split in splits if split in present], times, passed)


def splits_of_parquet(root: Path) -> frozenset[str]:
    """The splits that a folder of parquet files, or a file, has."""
    if root.is_file():
        return frozenset(split for _, _, split in _rows_of(root, ""))
    return frozenset(find_parquet(root))


def _rows_of(file: Path, split: str) -> Iterator[tuple[str, str, str]]:
    """Each row: the image's name in the file, its class (empty if it has none) and split."""
    schema = schema_of(file)
    images, labels = image_column(schema, file), label_column(schema, file)
    names = class_names(schema, labels)
    kind = schema.field(images).type
    columns = [labels]
    if hasattr(kind, "get_field_index") and kind.get_field_index("path") >= 0:
        columns.append(f"{images}.path")
    has_split = not split and SPLIT in schema.names
    if has_split:
        columns.append(SPLIT)
    with naming_damage(file):
        for row, (label, *others) in enumerate(read_columns(file, columns)):
            own_split = as_split(others.pop(), f"row {row} of {file}") if has_split else split
            path = (others[0] or {}).get("path") if others else None
            # The number keeps names apart, and the path tells the format.
            image = f"{row:08d}" + (f"-{Path(path).name}" if path else "")
            yield image, as_class(label, names), own_split or "train"
