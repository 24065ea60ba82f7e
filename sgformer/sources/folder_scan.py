"""Finds files: images below DIR/<split>/<class>/, and tar or parquet files of each split.

Each image file is looked at once, in several threads. What is no image, or hidden, is passed over
and counted. This module checks nothing.
"""

import errno
import functools
import os
import re
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from sgformer.sources.image_files import (
    OF_BESIDE,
    OF_FOLDER,
    OF_HIDDEN,
    OF_LINK,
    OF_OUTSIDE,
    OF_SPECIAL,
    SPLIT_OF,
    SPLITS,
    SUFFIXES,
    Found,
    ImageFiles,
    Passed,
    is_hidden,
    not_told,
)

NUM_THREADS: Final = 16  # they wait for the answers of a network disk
PACKED: Final = (".tar", ".parquet")
# Where the tar or parquet files of a data set may lie: in its folder, or in one of these below it.
FOLDERS_OF_PACKED: Final = ("", "data", *SPLIT_OF)
CHUNK: Final = 256  # files that a thread looks at in one go
NOT_THERE: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
GONE, NO_FILE = -1, -2  # in place of the size of a broken link; of a pipe, device or folder


@dataclass
class _Folder:
    """What one folder holds, by path below the root; files have not been looked at yet."""

    name: str
    time: int
    files: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    passed: Passed = field(default_factory=Passed)


def scan(root: Path, splits: Sequence[str], found: Found = not_told) -> ImageFiles:
    """The image files of those of the splits that exist.

    Raises:
        OSError: A folder cannot be read.
    """
    passed, times = Passed(), {"": _time(root)}
    class_folders: dict[str, tuple[str, ...]] = {}
    for entry in os.scandir(root):
        if entry.name.lower().endswith(PACKED):
            passed.add(OF_BESIDE, entry.name)
        elif entry.name not in SPLITS and entry.is_dir() and not is_hidden(entry.name):
            passed.add(OF_FOLDER, entry.name)
    for split in splits:
        if (root / split).is_dir():
            times[split] = _time(root / split)
            class_folders[split] = _class_folders(root, split, passed)
    folders = [f"{split}/{name}" for split, names in class_folders.items() for name in names]
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        names: list[str] = []
        for folder in _all_folders(root, folders, pool):
            times[folder.name] = folder.time
            passed.merge(folder.passed)
            names += folder.files
            found(len(names))
        names.sort()
        sizes, changed = look_at([f"{root}/{name}" for name in names], pool)
    is_file = sizes != NO_FILE
    for i in np.flatnonzero(~is_file).tolist():
        passed.add(OF_SPECIAL, names[i])
    return ImageFiles(
        tuple(name for name, is_one in zip(names, is_file, strict=True) if is_one),
        sizes[is_file],
        changed[is_file],
        class_folders,
        times,
        tuple(passed.notes()),
    )


def has_class_folders(root: Path) -> bool:
    """Whether there is a folder of a split with a folder in it that is not hidden."""
    return any(
        entry.is_dir() and not is_hidden(entry.name)
        for split in SPLITS
        if (root / split).is_dir()
        for entry in os.scandir(root / split)
    )


def packed_files(root: Path, *endings: str) -> dict[str, tuple[str, ...]]:
    """The files with one of these endings by split, as paths below the root, sorted.

    They are named after their split (`train-0000.tar`, `data/train-00000-of-00002.parquet`), or
    lie in a folder of its name (`train/0000.tar`).

    Raises:
        OSError: A folder cannot be read.
    """
    words, ends = "|".join(SPLIT_OF), "|".join(map(re.escape, endings))
    named = re.compile(rf"(?:.+[-_.])?({words})(?:[-_.].*)?(?:{ends})", re.IGNORECASE)
    files: dict[str, list[str]] = {}
    for folder in FOLDERS_OF_PACKED:
        for name in _visible_files(root / folder):
            match = named.fullmatch(name)
            split = SPLIT_OF.get(folder) or (SPLIT_OF[match[1].lower()] if match else None)
            if split is not None and name.lower().endswith(endings):
                files.setdefault(split, []).append(f"{folder}/{name}" if folder else name)
    return {split: tuple(own) for split, own in files.items()}


def times_of_packed(root: Path) -> dict[str, int]:
    """Times of the folders in which `packed_files` looks, by path below the root."""
    return {name: _time(root / name) for name in FOLDERS_OF_PACKED if (root / name).is_dir()}


def _visible_files(folder: Path) -> list[str]:
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(e.name for e in entries if not is_hidden(e.name) and e.is_file())


def _class_folders(root: Path, split: str, passed: Passed) -> tuple[str, ...]:
    names = []
    for entry in os.scandir(root / split):
        below = f"{split}/{entry.name}"
        if is_hidden(entry.name):
            passed.add(OF_HIDDEN, below)
        elif entry.is_dir():
            names.append(entry.name)
        else:
            passed.add(OF_OUTSIDE, below)
    return tuple(sorted(names))


def _all_folders(root: Path, names: list[str], pool: ThreadPoolExecutor) -> Iterator[_Folder]:
    """The folders of these names and all below them."""
    while names:
        below: list[str] = []
        for folder in pool.map(functools.partial(_list_folder, root), names):
            below += folder.folders
            yield folder
        names = below


def _list_folder(root: Path, folder: str) -> _Folder:
    result = _Folder(folder, _time(root / folder))
    for entry in os.scandir(root / folder):
        name = f"{folder}/{entry.name}"
        if is_hidden(entry.name):
            result.passed.add(OF_HIDDEN, name)
        elif entry.is_dir(follow_symlinks=False):
            result.folders.append(name)
        elif entry.name.lower().endswith(SUFFIXES):
            result.files.append(name)
        else:
            kind = OF_LINK if entry.is_dir() else Path(entry.name).suffix.lower()
            result.passed.add(kind, name)
    return result


def look_at(
    paths: Sequence[str], pool: ThreadPoolExecutor
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Sizes and times of files, (N,) each; see `size_and_time`."""
    chunks = [paths[i : i + CHUNK] for i in range(0, len(paths), CHUNK)]
    looked = pool.map(_look_at_some, chunks)
    found = np.array([one for chunk in looked for one in chunk], dtype=np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def _look_at_some(paths: Sequence[str]) -> list[tuple[int, int]]:
    return [size_and_time(path) for path in paths]


def size_and_time(path: Path | str) -> tuple[int, int]:
    """A file's bytes and time of last change; GONE for a broken link, NO_FILE for no file.

    Raises:
        OSError: The file cannot be looked at, for want of permission or by an error of the disk.
    """
    try:
        status = os.stat(path)  # noqa: PTH116  a Path takes twice the time
    except OSError as error:
        if error.errno not in NOT_THERE:
            raise
        return GONE, GONE  # counts as an unreadable image
    if not stat.S_ISREG(status.st_mode):  # reading from a pipe would never end
        return NO_FILE, NO_FILE
    return status.st_size, status.st_mtime_ns


def _time(folder: Path) -> int:
    return folder.stat().st_mtime_ns
