"""A data set's classes and splits: of an image folder, tar shards, a manifest or parquet files.

This module lists images and never reads one. Classes are in the order of their names' characters
("10" before "9"). Class names are compared in Unicode's composed form (NFC), so that a copy from a
Mac, whose disk decomposes "é", has the same classes. Results and messages spell a class as train
does.
"""

import contextlib
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from sgformer.data.cache_place import cache_place
from sgformer.data.class_order import in_order, order_of
from sgformer.data_config import DataConfig
from sgformer.errors import DataError, InputError, listed
from sgformer.images.trained_images import (
    TrainedImages,
    digests,
    on_changed_train,
    on_other_images,
)
from sgformer.sources.class_names import by_composed_name, composed, spelt
from sgformer.sources.folder_scan import has_class_folders
from sgformer.sources.image_files import (
    SPLITS,
    SUFFIXES,
    Found,
    ImageFiles,
    Places,
    not_told,
)
from sgformer.sources.kept_list import list_files
from sgformer.sources.listing import scan_images, splits_in
from sgformer.sources.source import ImageSource, source_of


@dataclass(frozen=True)
class LabelledImages:
    """The images of one split.

    Attributes:
        names: The images' names, such as 'train/cat/1.png'; see ImageFiles.
        labels: Class index of each image.
    """

    names: tuple[str, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class ImageFolder:
    """A data set's classes and splits.

    Attributes:
        root: The folder, manifest or parquet file.
        classes: Class names, sorted; or in the order of a model's logits.
        splits: The images by split: train, val and any test; only one if `read_split` read it.
        files: The images as they were listed; None if they were not.
    """

    root: Path
    classes: tuple[str, ...]
    splits: dict[str, LabelledImages]
    files: ImageFiles | None = field(default=None, compare=False)

    def split(self, name: str) -> LabelledImages:
        """The images of a split.

        Raises:
            DataError: The folder has no such split.
        """
        if name not in self.splits:
            raise DataError(f"no split {name!r} in {self.root}; there are: {listed(self.splits)}")
        return self.splits[name]

    @property
    def class_order(self) -> tuple[str, ...]:
        """The classes, if they are not in the order of their names; else empty."""
        return () if list(self.classes) == sorted(self.classes) else self.classes

    @property
    def val_is_of_train(self) -> bool:
        """Whether val was split off train because there is no val split."""
        return any(name.startswith("train/") for name in self.splits["val"].names)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was passed over, and other things that a user should know, a sentence each."""
        return () if self.files is None else self.files.notes

    @property
    def source(self) -> ImageSource:
        """Reads the images."""
        if self.files is None:
            return source_of(self.root, self.names)
        return source_of(self.root, self.files.names, self.files.places)

    @cached_property
    def places(self) -> Places | None:
        """Where the images lie, in the order of `names`; None: each is a file of its own."""
        if self.files is None or self.files.places is None:
            return None
        position = {name: i for i, name in enumerate(self.files.names)}
        return self.files.places.of(np.array([position[name] for name in self.names], np.int64))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all images, sorted."""
        return tuple(sorted(name for images in self.splits.values() for name in images.names))


@contextlib.contextmanager
def _naming_what_cannot_be_read() -> Iterator[None]:
    """Turns the OSError of an unreadable folder or file into a DataError with the path."""
    try:
        yield
    except OSError as error:
        raise DataError(f"cannot read the images: {error.strerror}: {error.filename}") from None


@_naming_what_cannot_be_read()
def read_image_folder(config: DataConfig, found: Found = not_told, least: int = 2) -> ImageFolder:
    """The images by split; without a val split, a stratified share of train becomes val.

    Args:
        config: Names the data set, and says how val is split off train.
        found: Is told how many images have been found so far.
        least: The least number of classes.

    Raises:
        DataError: The data set is missing or cannot be read, has an empty class, or its splits
            have different classes.
    """
    root = _root(config)
    files = list_files(root, SPLITS, _place_of_lists(config), found)
    return checked_folder(config, files, least)


@_naming_what_cannot_be_read()
def scan_image_folder(config: DataConfig, found: Found = not_told) -> ImageFiles:
    """The images, listed anew and not checked; nothing is written."""
    return scan_images(_root(config), SPLITS, found)


def checked_folder(config: DataConfig, files: ImageFiles, least: int = 2) -> ImageFolder:
    """The data set that consists of these images, with at least so many classes.

    Raises:
        DataError: There is no train split, a class is empty, or the splits' classes differ.
    """
    root = _root(config)
    if "train" not in files.class_folders:
        raise DataError(_on_no_train(root, files))
    classes = tuple(by_composed_name(root, "train", files).values())
    if len(classes) < least:
        raise DataError(
            f"{spelt(root, 'train')} has {len(classes)} classes; at least {least} are needed"
        )
    for split in files.class_folders:
        _check_classes(root, split, files, classes)
    return replace(folder_of(config, files.names, order_of(root)), files=files)


def folder_of(
    config: DataConfig, names: Iterable[str], order: tuple[str, ...] = ()
) -> ImageFolder:
    """The ImageFolder of images named 'split/class/...', without listing folders on the disk.

    Args:
        config: Names the data set, and says how val is split off train.
        names: The images' names.
        order: The first classes in their order; empty: all are in the order of their names.

    Raises:
        DataError: A class is too small to split val off train.
    """
    names_of = _names_of(names)
    first = next(split for split in SPLITS if split in names_of)
    classes = tuple(sorted(own[0].split("/", 2)[1] for own in names_of[first].values()))
    classes = in_order(classes, order, _root(config))
    splits = {split: _label(names_of[split], classes) for split in SPLITS if split in names_of}
    if "val" not in splits and "train" in splits:
        train, val = _split_off(splits["train"], classes, config)
        splits = {**splits, "train": train, "val": val}
    ordered = {split: splits[split] for split in SPLITS if split in splits}
    return ImageFolder(_root(config), classes, ordered)


@_naming_what_cannot_be_read()
def read_split(
    config: DataConfig, split: str, classes: tuple[str, ...], *, of_train: bool = False
) -> ImageFolder:
    """One split, with labels in the order of a model's `classes`; other splits may be missing.

    Args:
        config: Names the folder, and says how val is split off train.
        split: Its name.
        classes: The model's classes.
        of_train: Whether train and val are the parts of the train split, or splits.

    Raises:
        DataError: There is no such split, or its classes are not the model's.
    """
    root = _root(config)
    source = "train" if of_train and split != "test" else split
    have = splits_in(root)
    if source not in have:
        raise DataError(f"no split {source!r} in {root}; there are: {', '.join(have)}")
    files = list_files(root, (source,), _place_of_lists(config))
    if source not in files.class_folders:
        raise DataError(f"split {source} of {root} has no image with a class")
    _check_classes(root, source, files, classes, "the model")
    images = _label(_names_of(files.names)[source], classes)
    if source != split or (of_train and split == "train"):
        train, val = _split_off(images, classes, config)
        images = val if split == "val" else train
    return ImageFolder(root, classes, {split: images}, files)


def check_split(split: str) -> None:
    """Raises InputError if there is no split of this name."""
    if split not in SPLITS:
        raise InputError(f"--split: {split!r} is none of {', '.join(SPLITS)}")


def read_split_of_training(
    config: DataConfig, split: str, classes: tuple[str, ...], known: TrainedImages | None
) -> tuple[ImageFolder, tuple[str, ...]]:
    """A split as the model's training had it, and a note if it is another one.

    Args:
        config: The model's, with the data set to read.
        split: train, val or test.
        classes: The model's classes.
        known: What the model keeps of its images; None: it was exported by an earlier version.

    Raises:
        DataError: The split cannot be read; or train and val are parts of a train split that has
            changed since, so that it cannot be told which image belongs to which.
    """
    has_val = "val" in splits_in(_root(config))
    of_train = not has_val if known is None else known.val_of_train
    if split == "val" and has_val:
        of_train = False
    folder = read_split(config, split, classes, of_train=of_train)
    if split == "test":
        return folder, ()
    if known is None:
        return folder, (_on_unknown(split),) if of_train else ()
    assert folder.files is not None
    source = "train" if of_train else split
    if digests(folder.files)[source] == known.digests.get(source):
        return folder, ()
    if of_train:
        raise DataError(on_changed_train(folder.root))
    return folder, (on_other_images(split),)


def _on_unknown(split: str) -> str:
    other = "train" if split == "val" else "val"
    return (
        "the model was exported by an earlier version, which did not keep what its images were: "
        f"{split} is split off train anew; if images have come or gone since the training, some "
        f"of these were its {other} images"
    )


def _root(config: DataConfig) -> Path:
    root = config.data_dir
    if root is None:
        raise DataError("no image folder given: pass --data-dir, or set train.data.data_dir")
    if not root.exists():
        raise DataError(f"image folder not found: {root} (--data-dir, or train.data.data_dir)")
    return root


def _on_no_train(root: Path, files: ImageFiles) -> str:
    if root.is_file() or (files.class_folders and not has_class_folders(root)):
        have = ", ".join(files.class_folders) or "none"
        return "; ".join([f"{root} has no train image with a class; splits: {have}", *files.notes])
    return (
        f"{root} has no train folder; expected {root}/train/<class>/<images>, and val and test "
        "beside it if there are any; or shards (train-*.tar), or parquet files (train-*.parquet)"
    )


def _place_of_lists(config: DataConfig) -> Path:
    return cache_place(config.cache_dir) / "lists"


def _names_of(names: Iterable[str]) -> dict[str, dict[str, list[str]]]:
    """Images 'split/class/...' by split and by composed class name."""
    names_of: dict[str, dict[str, list[str]]] = {}
    for name in names:
        split, class_name, _ = name.split("/", 2)
        names_of.setdefault(split, {}).setdefault(composed(class_name), []).append(name)
    return names_of


def _check_classes(
    root: Path, split: str, files: ImageFiles, classes: tuple[str, ...], whose: str = "train"
) -> None:
    """Raises DataError unless a split has these classes and no others, each with images."""
    folder, found = spelt(root, split), by_composed_name(root, split, files)
    wanted = {composed(name): name for name in classes}
    extra = sorted(found[name] for name in found.keys() - wanted.keys())
    missing = sorted(wanted[name] for name in wanted.keys() - found.keys())
    if extra:
        raise DataError(f"{folder} has classes that {whose} lacks: {listed(extra)}")
    if missing:
        raise DataError(f"{folder} lacks classes that {whose} has: {listed(missing)}")
    full = {name.split("/", 2)[1] for name in files.names if name.startswith(f"{split}/")}
    empty = sorted(set(found.values()) - full)
    if empty:
        more = f", and {len(empty) - 1} more" if len(empty) > 1 else ""
        raise DataError(
            f"class without images: {str(root / split / empty[0])!r}{more} "
            f"({', '.join(SUFFIXES)} are read)"
        )


def _label(names: dict[str, list[str]], classes: Sequence[str]) -> LabelledImages:
    """A split's images in the order of `classes`; `names` has them by composed class name."""
    pairs = [(name, label) for label, c in enumerate(classes) for name in names[composed(c)]]
    return LabelledImages(tuple(name for name, _ in pairs), tuple(label for _, label in pairs))


def _split_off(
    train: LabelledImages, classes: tuple[str, ...], config: DataConfig
) -> tuple[LabelledImages, LabelledImages]:
    """The new train split and the val split, which gets `val_fraction` of each class.

    Both splits have at least one image of each class.
    """
    members_of: list[list[int]] = [[] for _ in classes]
    for i, label in enumerate(train.labels):
        members_of[label].append(i)
    share: set[int] = set()
    for name, members in zip(classes, members_of, strict=True):
        if len(members) < 2:
            raise DataError(
                f"class {name!r} has one image in train; 2 are needed to split val off train "
                "(or make a val folder)"
            )
        count = min(len(members) - 1, max(1, round(config.val_fraction * len(members))))
        share.update(random.Random(f"{config.val_seed}/{name}").sample(members, count))
    return _take(train, set(range(len(train))) - share), _take(train, share)


def _take(images: LabelledImages, indices: set[int]) -> LabelledImages:
    chosen = sorted(indices)
    return LabelledImages(
        tuple(images.names[i] for i in chosen), tuple(images.labels[i] for i in chosen)
    )
