import numpy as np

from sgformer.images.equal_images import (
    EqualAcross,
    EqualImages,
    equal_across,
    equal_in_several_classes,
    equal_within,
)

NAMES = ("a/0", "a/1", "a/2", "b/3", "b/4", "b/5")
ALL = np.arange(6)


def contents(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.uint64)


def test_images_equal_to_an_earlier_one_are_counted_with_the_first_pair() -> None:
    assert equal_within(NAMES, contents(5, 9, 5, 5, 9, 1), ALL) == EqualImages(3, ("a/2", "a/0"))
    assert equal_within(NAMES, contents(1, 2, 3, 4, 5, 6), ALL) is None


def test_only_the_images_of_the_split_are_compared() -> None:
    same = contents(5, 9, 5, 5, 9, 1)
    assert equal_within(NAMES, same, np.array([0, 1, 5])) is None
    assert equal_within(NAMES, same, np.array([2, 3])) == EqualImages(1, ("b/3", "a/2"))
    assert equal_within(NAMES, same, np.array([], np.int64)) is None


def test_each_later_split_is_compared_with_each_earlier_one() -> None:
    positions = {"train": np.array([0, 1]), "val": np.array([2, 3]), "test": np.array([4, 5])}
    found = list(equal_across(NAMES, contents(7, 8, 8, 1, 1, 8), positions))
    assert found == [
        EqualAcross(1, ("a/2", "a/1"), "val", "train"),
        EqualAcross(1, ("b/5", "a/1"), "test", "train"),
        EqualAcross(2, ("b/4", "b/3"), "test", "val"),
    ]
    assert list(equal_across(NAMES, contents(1, 2, 3, 4, 5, 6), positions)) == []


def test_equal_images_of_several_classes_are_counted_in_all_of_them() -> None:
    classes = np.array([0, 0, 0, 1, 1, 1], np.int32)
    found = equal_in_several_classes(NAMES, contents(3, 4, 4, 4, 8, 8), classes, ALL)
    assert found == EqualImages(3, ("a/1", "b/3"))
    # Equal images of one class, and images that cannot be read, say nothing.
    assert equal_in_several_classes(NAMES, contents(3, 3, 4, 5, 8, 8), classes, ALL) is None
    unread = np.array([0, 1, 2, 4, 5])
    assert equal_in_several_classes(NAMES, contents(3, 4, 4, 4, 8, 8), classes, unread) is None
