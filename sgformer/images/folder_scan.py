"""Lists the image files below DIR/<split>/<class>/, with one stat a file, in several threads.

What is no image, or hidden, is passed over and counted. This module checks nothing.
"""

import errno
import functools
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

SUFFIXES: Final = (
    ".apng", ".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png",
    ".pnm", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip
# What systems and programs leave beside images, in lower case; so are names that begin with a dot.
HIDDEN: Final = (
    "$recycle.bin", "@eadir", "__macosx", "desktop.ini", "lost+found", "system volume information",
    "thumbs.db",
)  # fmt: skip
SPLITS: Final[tuple[str, ...]] = ("train", "val", "test")
NUM_THREADS: Final = 16  # they wait for the answers of a network disk
CHUNK: Final = 256  # files that a thread looks at in one go
NOT_THERE: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
GONE, NO_FILE = -1, -2  # in place of the size of a broken link; of a pipe, device or folder

Found = Callable[[int], None]  # is told how many files have been found so far


def not_told(num_files: int) -> None:
    """A `Found` that tells nobody."""


@dataclass(frozen=True)
class ImageFiles:
    """The image files of a folder, as a scan finds them.

    Attributes:
        names: Paths below the root, such as 'train/cat/1.png', sorted.
        sizes: Bytes of each file, (N,); -1 for a broken link.
        times: Time of each file's last change in nanoseconds, (N,); -1 for a broken link.
        class_folders: The names of each split's class folders, sorted; also of empty ones.
        folder_times: Time of the last change of each folder that was read, by path below the root.
        notes: What was passed over, a sentence each.
    """

    names: tuple[str, ...]
    sizes: npt.NDArray[np.int64]
    times: npt.NDArray[np.int64]
    class_folders: dict[str, tuple[str, ...]]
    folder_times: dict[str, int]
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[tuple[str, int, int]]:
        """Name, size and time of each file."""
        return zip(self.names, self.sizes.tolist(), self.times.tolist(), strict=True)


@dataclass
class _Passed:
    """What was passed over, by kind: how many, and the first."""

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, kind: str, name: str, count: int = 1) -> None:
        self.counts[kind] += count
        self.first[kind] = min(name, self.first.get(kind, name))

    def merge(self, other: "_Passed") -> None:
        for kind, count in other.counts.items():
            self.add(kind, other.first[kind], count)

    def notes(self) -> Iterator[str]:
        others = sorted(kind for kind in self.counts if kind not in _KINDS)
        if others:
            total = sum(self.counts[suffix] for suffix in others)
            kinds = ", ".join(f"{self.counts[s]} {s or 'without suffix'}" for s in others[:10])
            first = min(self.first[suffix] for suffix in others)
            yield (
                f"files passed over that are of no known image format: {total} ({kinds}), such as "
                f"{first!r}"
            )
        for kind, what in _KINDS.items():
            if count := self.counts[kind]:
                yield f"{what}: {count}, such as {self.first[kind]!r}"


_HIDDEN, _LINK, _OUTSIDE, _SPECIAL, _FOLDER = "*hidden", "*link", "*outside", "*special", "*folder"
_KINDS: Final = {
    _HIDDEN: "hidden files and folders passed over",
    _LINK: "links to folders below a class passed over",
    _OUTSIDE: "files passed over that lie in no class folder",
    _SPECIAL: "pipes, devices and folders passed over that are named as images",
    _FOLDER: "folders passed over that are not named train, val or test",
}


@dataclass
class _Folder:
    """What one folder holds, by path below the root; files have not been looked at yet."""

    name: str
    time: int
    files: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    passed: _Passed = field(default_factory=_Passed)


def scan(root: Path, splits: Sequence[str], found: Found = not_told) -> ImageFiles:
    """The image files of those of the splits that exist.

    Raises:
        OSError: A folder cannot be read.
    """
    passed, times = _Passed(), {"": _time(root)}
    class_folders: dict[str, tuple[str, ...]] = {}
    for entry in os.scandir(root):
        if entry.name not in SPLITS and entry.is_dir() and not is_hidden(entry.name):
            passed.add(_FOLDER, entry.name)
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
        sizes, changed = _look_at(root, names, pool, passed)
    is_file = sizes != NO_FILE
    return ImageFiles(
        tuple(name for name, is_one in zip(names, is_file, strict=True) if is_one),
        sizes[is_file],
        changed[is_file],
        class_folders,
        times,
        tuple(passed.notes()),
    )


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is passed over as hidden."""
    return name.startswith(".") or name.lower() in HIDDEN


def _class_folders(root: Path, split: str, passed: _Passed) -> tuple[str, ...]:
    names = []
    for entry in os.scandir(root / split):
        below = f"{split}/{entry.name}"
        if is_hidden(entry.name):
            passed.add(_HIDDEN, below)
        elif entry.is_dir():
            names.append(entry.name)
        else:
            passed.add(_OUTSIDE, below)
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
            result.passed.add(_HIDDEN, name)
        elif entry.is_dir(follow_symlinks=False):
            result.folders.append(name)
        elif entry.name.lower().endswith(SUFFIXES):
            result.files.append(name)
        else:
            kind = _LINK if entry.is_dir() else Path(entry.name).suffix.lower()
            result.passed.add(kind, name)
    return result


def _look_at(
    root: Path, names: Sequence[str], pool: ThreadPoolExecutor, passed: _Passed
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Sizes and times of the files; size NO_FILE for what is a pipe or a link to a folder."""
    chunks = [names[i : i + CHUNK] for i in range(0, len(names), CHUNK)]
    looked = pool.map(functools.partial(_look_at_some, root), chunks)
    found = np.array([one for chunk in looked for one in chunk], dtype=np.int64).reshape(-1, 2)
    for i in np.flatnonzero(found[:, 0] == NO_FILE).tolist():
        passed.add(_SPECIAL, names[i])
    return found[:, 0], found[:, 1]


def _look_at_some(root: Path, names: Sequence[str]) -> list[tuple[int, int]]:
    return [size_and_time(f"{root}/{name}") for name in names]


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
