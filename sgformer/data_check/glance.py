"""A glance at a data set: its lists, and the headers of some of its images; none is decoded."""

from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from sgformer.cpus import in_threads
from sgformer.data.image_folder import ImageFolder
from sgformer.data_check.check import ClassSizes, SidesFound, SplitFound
from sgformer.errors import DataError
from sgformer.images.headers import Header, read_header
from sgformer.sources.source import ImageSource

MOST_HEADERS: Final = 1000  # the median of so many sides is known well enough to round it to 32
HEAD_BYTES: Final = 2**16  # of a file, which hold nearly every header


@dataclass(frozen=True)
class Glance:
    """What lists and some headers tell of a data set.

    Attributes:
        folder: The path of its folder or file.
        splits: Images and classes by split, as a search would have them.
        val_is_of_train: Whether val is split off the train folder.
        class_sizes: Of train, without the val that is split off.
        shorter_side: Pixels of the shorter sides of the images that were looked at.
        longer_side: Pixels of their longer sides.
        num_looked_at: Number of train images whose headers were read.
        num_unknown: Number of these whose headers tell no size.
        passed_over: What is no image, or hidden, a sentence a kind.
    """

    folder: str
    splits: dict[str, SplitFound]
    val_is_of_train: bool
    class_sizes: ClassSizes
    shorter_side: SidesFound
    longer_side: SidesFound
    num_looked_at: int
    num_unknown: int
    passed_over: tuple[str, ...]

    @property
    def num_to_split(self) -> int:
        """Train images, with the val that is split off them."""
        val = self.splits["val"].images if self.val_is_of_train else 0
        return self.splits["train"].images + val


def glance_at(folder: ImageFolder) -> Glance:
    """Looks at a data set whose images were listed.

    Raises:
        DataError: No header that was looked at tells a size.
    """
    names = folder.source.spread(sorted(folder.splits["train"].names), MOST_HEADERS)
    headers = list(in_threads(partial(_header, folder.source), names))
    sizes = np.array([header.size for header in headers if header.format])
    if not len(sizes):
        raise DataError(
            f"none of {len(names)} train images of {folder.root} that were looked at can be read, "
            f"such as {names[0]!r}"
        )
    return Glance(
        folder=str(folder.root),
        splits={
            split: SplitFound(len(images), len(folder.classes))
            for split, images in folder.splits.items()
        },
        val_is_of_train=folder.val_is_of_train,
        class_sizes=_class_sizes(folder),
        shorter_side=_sides(sizes.min(axis=1)),
        longer_side=_sides(sizes.max(axis=1)),
        num_looked_at=len(names),
        num_unknown=len(names) - len(sizes),
        passed_over=folder.notes,
    )


def _header(source: ImageSource, name: str) -> Header:
    """An image's header; of some files, such as TIFF, it lies at the end."""
    header = read_header(source.read(name, HEAD_BYTES))
    return header if header.format else read_header(source.read(name))


def _class_sizes(folder: ImageFolder) -> ClassSizes:
    counts = np.bincount(folder.splits["train"].labels, minlength=len(folder.classes))
    rare, frequent = int(counts.argmin()), int(counts.argmax())
    return ClassSizes(
        "train", int(counts[frequent]), folder.classes[frequent], float(np.median(counts)),
        int(counts[rare]), folder.classes[rare],
    )  # fmt: skip


def _sides(pixels: "np.ndarray[tuple[int, ...], np.dtype[np.int64]]") -> SidesFound:
    return SidesFound(int(pixels.min()), float(np.median(pixels)), int(pixels.max()))
