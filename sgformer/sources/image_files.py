"""The images of a data set, as a listing finds them; nothing here reads an image."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
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
# What files and columns call a split, and no other word; Hugging Face writes `validation`.
SPLIT_OF: Final = {name: name for name in SPLITS} | {"valid": "val", "validation": "val"}

Found = Callable[[int], None]  # is told how many files have been found so far


def not_told(num_files: int) -> None:
    """A `Found` that tells nobody."""


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is passed over as hidden."""
    return name.startswith(".") or name.lower() in HIDDEN


@dataclass(frozen=True)
class Places:
    """Where each image of a set lies whose images are no files of their own.

    Attributes:
        containers: The tar or parquet files that hold the images, as paths below the root.
        where: (N, 3): the position of an image's file in `containers`, the image's place in it
            (the offset of its first byte in a tar, its row in a parquet file), and its size.
    """

    containers: tuple[str, ...]
    where: npt.NDArray[np.int64]

    def of(self, positions: npt.NDArray[np.int64]) -> "Places":
        """The places of the images at these positions."""
        return Places(self.containers, self.where[positions])


@dataclass(frozen=True)
class ImageFiles:
    """The images of a set, as a listing finds them.

    Attributes:
        names: '<split>/<class>/<image>', sorted. For a folder these are paths below the root; for
            a manifest, <image> is the path that it gives; for a tar or parquet file it begins
            with the path of that file.
        sizes: Bytes of each image, (N,), or of its parquet file; -1 for a file that is missing, -2
            for what a manifest names and is no file.
        times: Time of the last change of each image's file in nanoseconds, (N,); -1 or -2 as well.
        class_folders: The classes of each split, sorted; also of empty class folders.
        folder_times: Time of the last change of each folder and file that was read to list the
            images, by path below the root.
        notes: What was passed over, a sentence each.
        places: Where each image lies; None: each is a file of its own.
    """

    names: tuple[str, ...]
    sizes: npt.NDArray[np.int64]
    times: npt.NDArray[np.int64]
    class_folders: dict[str, tuple[str, ...]]
    folder_times: dict[str, int]
    notes: tuple[str, ...]
    places: Places | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[tuple[str, int, int]]:
        """Name, size and time of each file."""
        return zip(self.names, self.sizes.tolist(), self.times.tolist(), strict=True)


@dataclass
class Passed:
    """What a listing passed over, by kind: how many, and the first. A kind may be a suffix."""

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, kind: str, name: str, count: int = 1) -> None:
        if not count:
            return
        self.counts[kind] += count
        self.first[kind] = min(name, self.first.get(kind, name))

    def merge(self, other: "Passed") -> None:
        for kind, count in other.counts.items():
            self.add(kind, other.first[kind], count)

    def notes(self) -> Iterator[str]:
        """A sentence a kind."""
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


OF_HIDDEN, OF_LINK, OF_OUTSIDE, OF_SPECIAL = "*hidden", "*link", "*outside", "*special"
OF_FOLDER, OF_UNLABELLED, OF_REPEATED = "*folder", "*unlabelled", "*repeated"
OF_BESIDE = "*beside"
_KINDS: Final = {
    OF_HIDDEN: "hidden files and folders passed over",
    OF_LINK: "links to folders below a class passed over",
    OF_OUTSIDE: "files passed over that lie in no class folder",
    OF_SPECIAL: "pipes, devices, links and folders passed over that are named as images",
    OF_FOLDER: "folders passed over that are not named train, val or test",
    OF_BESIDE: "tar and parquet files passed over beside the class folders",
    OF_UNLABELLED: "images passed over that have no class",
    OF_REPEATED: "images passed over that are listed twice",
}
