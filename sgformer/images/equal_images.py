"""Finds images of equal content: within a split, across splits, and in several classes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Positions = npt.NDArray[np.int64]
Contents = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class EqualImages:
    """A number of images that are equal, byte for byte, to others.

    Attributes:
        images: How many.
        first: The first of them, and one that it is equal to.
    """

    images: int
    first: tuple[str, str]


@dataclass(frozen=True)
class EqualAcross(EqualImages):
    """Images of one split that are equal to images of another, with which metrics are too good.

    Attributes:
        split: The later split, whose images are counted.
        earlier: The other one, train or val.
    """

    split: str
    earlier: str


def equal_within(names: Sequence[str], contents: Contents, where: Positions) -> EqualImages | None:
    """The images at these positions that are equal to an earlier one; None if there are none.

    Args:
        names: The names of all images, sorted.
        contents: A number for the content of each.
        where: Positions of images, ascending.
    """
    _, first, inverse = np.unique(contents[where], return_index=True, return_inverse=True)
    repeated = np.flatnonzero(first[inverse] != np.arange(len(where)))
    if not repeated.size:
        return None
    twin = first[inverse[repeated[0]]]
    return EqualImages(repeated.size, (names[where[repeated[0]]], names[where[twin]]))


def equal_across(
    names: Sequence[str], contents: Contents, positions_of: Mapping[str, Positions]
) -> Iterator[EqualAcross]:
    """For each two splits, the images of the later one that are equal to one of the earlier."""
    splits = list(positions_of)
    for i, split in enumerate(splits):
        for earlier in splits[:i]:
            own, other = positions_of[split], positions_of[earlier]
            equal = own[np.isin(contents[own], contents[other])]
            if equal.size:
                twin = other[contents[other] == contents[equal[0]]][0]
                first = names[equal[0]], names[twin]
                yield EqualAcross(equal.size, first, split, earlier)


def equal_in_several_classes(
    names: Sequence[str], contents: Contents, classes: npt.NDArray[np.int32], where: Positions
) -> EqualImages | None:
    """The images that are equal to one of another class, in any split; None if there are none."""
    kinds, inverse = np.unique(contents[where], return_inverse=True)
    own = classes[where]
    smallest = np.full(len(kinds), np.iinfo(np.int32).max, np.int32)
    largest = np.full(len(kinds), -1, np.int32)
    np.minimum.at(smallest, inverse, own)
    np.maximum.at(largest, inverse, own)
    mixed = np.flatnonzero((smallest != largest)[inverse])
    if not mixed.size:
        return None
    is_twin = (inverse == inverse[mixed[0]]) & (own != own[mixed[0]])
    twin = where[np.flatnonzero(is_twin)[0]]
    return EqualImages(mixed.size, (names[where[mixed[0]]], names[twin]))
