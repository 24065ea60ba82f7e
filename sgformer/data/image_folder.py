"""The image folder: DIR/{train,val,test}/<class>/<image>. Only looks at names; decodes nothing."""

import contextlib
import os
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sgformer.config import DataConfig
from sgformer.errors import DataError

SPLITS: Final[tuple[str, ...]] = ("train", "val", "test")
SUFFIXES: Final = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class LabelledImages:
    """Images of one split, by their names below the root, with the index of each one's class."""

    names: tuple[str, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class ImageFolder:
    """Class names in sorted order, and the splits there are: always train and val."""

    root: Path
    classes: tuple[str, ...]
    splits: dict[str, LabelledImages]

    def split(self, name: str) -> LabelledImages:
        """The images of a split.

        Raises:
            DataError: The folder has no such split.
        """
        if name not in self.splits:
            have = ", ".join(self.splits)
            raise DataError(f"no split {name!r} in {self.root}; there are: {have}")
        return self.splits[name]

    @property
    def val_is_of_train(self) -> bool:
        """Whether val is a share of the train folder's images."""
        return any(name.startswith("train/") for name in self.splits["val"].names)

    @property
    def names(self) -> tuple[str, ...]:
        """All images, in sorted order."""
        return tuple(sorted(name for images in self.splits.values() for name in images.names))


@contextlib.contextmanager
def _telling_what_cannot_be_read() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"cannot read the image folder: {error.strerror}: {error.filename}"
        ) from None


@_telling_what_cannot_be_read()
def read_image_folder(config: DataConfig) -> ImageFolder:
    """The folder's images; without a val folder, a stratified share of train becomes val.

    Raises:
        DataError: The folder is missing or cannot be read, has an empty class, or its splits
            disagree on classes.
    """
    root = _root(config)
    if not (root / "train").is_dir():
        raise DataError(
            f"{root} has no train folder; expected {root}/train/<class>/<images>, and val and "
            "test beside it if there are any"
        )
    classes = _class_names(root / "train")
    if len(classes) < 2:
        raise DataError(
            f"{root / 'train'} has {len(classes)} class folders; at least 2 are needed"
        )
    names: list[str] = []
    for split in SPLITS:
        if (root / split).is_dir():
            _check_classes(root / split, classes)
            names += [name for c in classes for name in _list_images(root, split, c)]
    return folder_of(config, names)


def folder_of(config: DataConfig, names: Iterable[str]) -> ImageFolder:
    """The folder that has just these images, `split/class/...`; the disk is not looked at.

    Raises:
        DataError: A class is too small to split val off train.
    """
    names_of: dict[str, dict[str, list[str]]] = {}
    for name in names:
        split, class_name, _ = name.split("/", 2)
        names_of.setdefault(split, {}).setdefault(class_name, []).append(name)
    classes = tuple(sorted(next(iter(names_of.values()))))
    splits = {split: _label(names_of[split], classes) for split in SPLITS if split in names_of}
    if "val" not in splits and "train" in splits:
        train, val = _split_off(splits["train"], classes, config)
        splits = {**splits, "train": train, "val": val}
    ordered = {split: splits[split] for split in SPLITS if split in splits}
    return ImageFolder(_root(config), classes, ordered)


@_telling_what_cannot_be_read()
def read_split(config: DataConfig, split: str, classes: tuple[str, ...]) -> ImageFolder:
    """One split alone, for a model that knows its classes; the other splits may be missing.

    Raises:
        DataError: See `read_image_folder`; or the classes are not the model's.
    """
    root = config.data_dir
    if root is not None and (root / split).is_dir():
        _check_classes(root / split, classes, "the model")
        names = {name: list(_list_images(root, split, name)) for name in classes}
        return ImageFolder(root, classes, {split: _label(names, classes)})
    folder = read_image_folder(config)
    _check_classes(folder.root / "train", classes, "the model")
    return ImageFolder(folder.root, classes, {split: folder.split(split)})


def _root(config: DataConfig) -> Path:
    root = config.data_dir
    if root is None:
        raise DataError("no image folder given: pass --data-dir, or set train.data.data_dir")
    if not root.is_dir():
        raise DataError(f"image folder not found: {root} (--data-dir, or train.data.data_dir)")
    return root


def _class_names(folder: Path) -> tuple[str, ...]:
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    for name in names:
        if not _is_text(name):
            raise DataError(
                f"name of a class folder is not UTF-8: {str(folder / name)!r}; rename it"
            )
    return tuple(names)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_classes(folder: Path, classes: tuple[str, ...], whose: str = "train") -> None:
    found = set(_class_names(folder))
    extra, missing = sorted(found - set(classes)), sorted(set(classes) - found)
    if extra:
        raise DataError(f"{folder} has classes that {whose} lacks: {', '.join(extra)}")
    if missing:
        raise DataError(f"{folder} lacks classes that {whose} has: {', '.join(missing)}")


def _list_images(root: Path, split: str, class_name: str) -> Iterator[str]:
    """Names below the root, sorted; of subfolders too."""
    top = root / split / class_name
    found: list[str] = []

    def refuse(error: OSError) -> None:
        raise error

    for folder, _, files in os.walk(top, onerror=refuse):
        below = Path(folder).relative_to(root).as_posix()
        # A pipe would be waited on for ever; a link to nowhere is an image that cannot be read.
        found += [
            f"{below}/{file}"
            for file in files
            if file.lower().endswith(SUFFIXES) and _may_be_an_image(Path(folder, file))
        ]
    if not found:
        raise DataError(f"class without images: {top} ({', '.join(SUFFIXES)} are read)")
    yield from sorted(found)


def _may_be_an_image(path: Path) -> bool:
    return path.is_file() or not path.exists()


def _label(names: dict[str, list[str]], classes: Sequence[str]) -> LabelledImages:
    pairs = [(name, label) for label, c in enumerate(classes) for name in names[c]]
    return LabelledImages(tuple(name for name, _ in pairs), tuple(label for _, label in pairs))


def _split_off(
    train: LabelledImages, classes: tuple[str, ...], config: DataConfig
) -> tuple[LabelledImages, LabelledImages]:
    """(rest, share), stratified: of each class at least one image on either side."""
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
