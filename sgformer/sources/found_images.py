"""Collects the images of shards, manifests and parquet files into one sorted list."""

from array import array
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from sgformer.errors import DataError
from sgformer.sources.image_files import OF_REPEATED, SPLITS, ImageFiles, Passed, Places

FORBIDDEN: Final = ("/", "\0")  # in a class: names of images are '<split>/<class>/<image>'


def check_class(name: str, where: str) -> str:
    """The name of a class.

    Args:
        name: The name; an empty one says that there is no class.
        where: Where it was read, for the message.

    Raises:
        DataError: The name has a slash or a null character.
    """
    if any(sign in name for sign in FORBIDDEN):
        raise DataError(
            f"a class cannot be named {name!r}: {where}; a slash is allowed in no class, rename it"
        )
    return name


class FoundImages:
    """Images as they are found in shards, a manifest or parquet files; `as_files` sorts them.

    Args:
        containers: The files that hold images, by path below the root; none: each image is a file
            of its own.
    """

    def __init__(self, containers: Sequence[str] = ()) -> None:
        self._containers = {name: i for i, name in enumerate(containers)}
        self._names: list[str] = []
        # One array a column, and not a tuple an image: of a million images 40 MB, and not 200.
        self._sizes, self._times = array("q"), array("q")
        self._container, self._place = array("q"), array("q")
        self._classes: dict[str, set[str]] = {}

    def __len__(self) -> int:
        return len(self._names)

    @property
    def names(self) -> Sequence[str]:
        """The images' names in the order in which they were found."""
        return self._names

    def add(self, split: str, class_name: str, image: str) -> None:
        """Adds an image that is a file of its own.

        Raises:
            DataError: Its name has a null character.
        """
        if "\0" in image:
            raise DataError(f"an image's name has a null character: {image!r}; rename it")
        self._names.append(f"{split}/{class_name}/{image}")
        self._classes.setdefault(split, set()).add(class_name)

    def add_stored(
        self, split: str, class_name: str, image: str, *,
        container: str, place: int, size: int, time: int,
    ) -> None:  # fmt: skip
        """Adds an image that lies in a container; see Places and ImageFiles."""
        self.add(split, class_name, f"{container}/{image}")
        self._sizes.append(size)
        self._times.append(time)
        self._container.append(self._containers[container])
        self._place.append(place)

    def look_at(self, sizes: Sequence[int], times: Sequence[int]) -> None:
        """Adds sizes and times of images that are files of their own, in the order of `names`."""
        self._sizes, self._times = array("q", sizes), array("q", times)

    def as_files(self, folder_times: Mapping[str, int], passed: Passed) -> ImageFiles:
        """The images, each once; a split without any is left out.

        Args:
            folder_times: Times of the folders and files that were read.
            passed: What was passed over; gets what is listed twice.
        """
        names = self._names
        order = sorted(range(len(names)), key=names.__getitem__)
        kept = [i for n, i in enumerate(order) if n == 0 or names[i] != names[order[n - 1]]]
        if len(kept) < len(order):
            twice = next(n for n in range(1, len(order)) if names[order[n]] == names[order[n - 1]])
            passed.add(OF_REPEATED, names[order[twice]], len(order) - len(kept))
        chosen = np.array(kept, np.int64)
        sizes, times, container, place = (
            np.frombuffer(column, np.int64) if column else np.empty(0, np.int64)
            for column in (self._sizes, self._times, self._container, self._place)
        )
        places = None
        if self._containers:
            where = np.stack([container, place, sizes], axis=1)[chosen]
            places = Places(tuple(self._containers), where)
        return ImageFiles(
            tuple(names[i] for i in kept),
            sizes[chosen],
            times[chosen],
            {s: tuple(sorted(self._classes[s])) for s in SPLITS if s in self._classes},
            dict(folder_times),
            tuple(passed.notes()),
            places,
        )
