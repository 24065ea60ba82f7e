"""The image folder: DIR/{train,val,test}/<class>/<image>.

This module reads names of folders and files, never an image. Class names are compared in Unicode's
composed form (NFC), so that a copy from a Mac, whose disk decomposes "é", has the same classes.
Results and messages spell a class as its folder in train.
"""

import contextlib
import os
import random
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sgformer.config import DataConfig
from sgformer.errors import DataError, some_of

SPLITS: Final[tuple[str, ...]] = ("train", "val", "test")
SUFFIXES: Final = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class LabelledImages:
    """The images of one split.

    Attributes:
        names: Paths of the images below the root, such as 'train/cat/1.png'.
        labels: Class index of each image.
    """

    names: tuple[str, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class ImageFolder:
    """An image folder's classes and splits.

    Attributes:
        root: The folder.
        classes: Class names, sorted; or in the order of a model's logits.
        splits: The images by split: train, val and any test; only one if `read_split` read it.
    """

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
        """Whether val was split off the train folder because there is no val folder."""
        return any(name.startswith("train/") for name in self.splits["val"].names)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all images, sorted."""
        return tuple(sorted(name for images in self.splits.values() for name in images.names))


@contextlib.contextmanager
def _naming_what_cannot_be_read() -> Iterator[None]:
    """Turns the OSError of an unreadable folder into a DataError with the path."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"cannot read the image folder: {error.strerror}: {error.filename}"
        ) from None


@_naming_what_cannot_be_read()
def read_image_folder(config: DataConfig) -> ImageFolder:
    """The folder's images by split; without a val folder, a stratified share of train becomes val.

    Raises:
        DataError: The folder is missing or cannot be read, has an empty class, or its splits
            have different classes.
    """
    root = _root(config)
    if not (root / "train").is_dir():
        raise DataError(
            f"{root} has no train folder; expected {root}/train/<class>/<images>, and val and "
            "test beside it if there are any"
        )
    classes = tuple(_class_folders(root / "train").values())
    if len(classes) < 2:
        raise DataError(
            f"{root / 'train'} has {len(classes)} class folders; at least 2 are needed"
        )
    names: list[str] = []
    for split in SPLITS:
        if (root / split).is_dir():
            folders = _checked_folders(root / split, classes)
            names += [name for folder in folders for name in _list_images(root, split, folder)]
    return folder_of(config, names)


def folder_of(config: DataConfig, names: Iterable[str]) -> ImageFolder:
    """The ImageFolder of images named 'split/class/...', without listing folders on the disk.

    Raises:
        DataError: A class is too small to split val off train.
    """
    names_of: dict[str, dict[str, list[str]]] = {}
    spelling: dict[str, dict[str, str]] = {}
    for name in names:
        split, class_name, _ = name.split("/", 2)
        composed = _composed(class_name)
        names_of.setdefault(split, {}).setdefault(composed, []).append(name)
        spelling.setdefault(split, {})[composed] = class_name
    first = next(split for split in SPLITS if split in names_of)
    classes = tuple(sorted(spelling[first].values()))
    splits = {split: _label(names_of[split], classes) for split in SPLITS if split in names_of}
    if "val" not in splits and "train" in splits:
        train, val = _split_off(splits["train"], classes, config)
        splits = {**splits, "train": train, "val": val}
    ordered = {split: splits[split] for split in SPLITS if split in splits}
    return ImageFolder(_root(config), classes, ordered)


@_naming_what_cannot_be_read()
def read_split(config: DataConfig, split: str, classes: tuple[str, ...]) -> ImageFolder:
    """One split, with labels in the order of a model's `classes`; other splits may be missing.

    Raises:
        DataError: See `read_image_folder`; or the split's classes are not the model's.
    """
    root = config.data_dir
    if root is not None and (root / split).is_dir():
        folders = _checked_folders(root / split, classes, "the model")
        names = {_composed(folder): list(_list_images(root, split, folder)) for folder in folders}
        return ImageFolder(root, classes, {split: _label(names, classes)})
    folder = read_image_folder(config)
    _checked_folders(folder.root / "train", classes, "the model")
    images = folder.split(split)
    names_of: dict[str, list[str]] = {_composed(c): [] for c in classes}
    for name, label in zip(images.names, images.labels, strict=True):
        names_of[_composed(folder.classes[label])].append(name)
    return ImageFolder(folder.root, classes, {split: _label(names_of, classes)})


def _root(config: DataConfig) -> Path:
    root = config.data_dir
    if root is None:
        raise DataError("no image folder given: pass --data-dir, or set train.data.data_dir")
    if not root.is_dir():
        raise DataError(f"image folder not found: {root} (--data-dir, or train.data.data_dir)")
    return root


def _composed(class_name: str) -> str:
    """The class name in NFC, the form in which class names are compared."""
    return unicodedata.normalize("NFC", class_name)


def _class_folders(folder: Path) -> dict[str, str]:
    """Sorted names of a split's class folders; the keys are the names in composed form."""
    folders: dict[str, str] = {}
    for name in sorted(entry.name for entry in os.scandir(folder) if entry.is_dir()):
        if not _is_text(name):
            raise DataError(
                f"name of a class folder is not UTF-8: {str(folder / name)!r}; rename it"
            )
        other = folders.setdefault(_composed(name), name)
        if other != name:
            raise DataError(
                f"{folder} has two folders of one class, in two Unicode forms: {other!a} and "
                f"{name!a}; put their images into one"
            )
    return folders


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _checked_folders(
    folder: Path, classes: tuple[str, ...], whose: str = "train"
) -> tuple[str, ...]:
    """The folder name of each class in a split, which must have these classes and no others."""
    found = _class_folders(folder)
    wanted = {_composed(name): name for name in classes}
    extra = sorted(found[name] for name in found.keys() - wanted.keys())
    missing = sorted(wanted[name] for name in wanted.keys() - found.keys())
    if extra:
        raise DataError(f"{folder} has classes that {whose} lacks: {some_of(extra)}")
    if missing:
        raise DataError(f"{folder} lacks classes that {whose} has: {some_of(missing)}")
    return tuple(found[name] for name in wanted)


def _list_images(root: Path, split: str, class_folder: str) -> Iterator[str]:
    """Sorted names of a class's images, subfolders included."""
    top = root / split / class_folder
    found: list[str] = []

    def refuse(error: OSError) -> None:
        raise error

    for folder, _, files in os.walk(top, onerror=refuse):
        below = Path(folder).relative_to(root).as_posix()
        # Pipes are left out, because reading from a pipe would never end. Broken links are kept
        # and count as unreadable images.
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
    """A split's images in the order of `classes`; `names` has them by composed class name."""
    pairs = [(name, label) for label, c in enumerate(classes) for name in names[_composed(c)]]
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
