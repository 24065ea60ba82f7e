"""The image folder: DIR/{train,val,test}/<class>/<image>. Only looks at names; decodes nothing."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sgformer.config import DataConfig
from sgformer.errors import DataError

SPLITS: Final = ("train", "val", "test")
SUFFIXES: Final = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class LabelledImages:
    """Images of one split with the index of each one's class."""

    paths: tuple[Path, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.paths)


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


def read_image_folder(config: DataConfig) -> ImageFolder:
    """The folder's images; without a val folder, a stratified share of train becomes val.

    Raises:
        DataError: The folder is missing, has an empty class, or its splits disagree on classes.
    """
    root = config.data_dir
    if root is None:
        raise DataError("no image folder given: pass --data-dir, or set train.data.data_dir")
    if not root.is_dir():
        raise DataError(f"image folder not found: {root} (--data-dir, or train.data.data_dir)")
    if not (root / "train").is_dir():
        raise DataError(
            f"{root} has no train folder; expected {root}/train/<class>/<images>, and val and "
            "test beside it if there are any"
        )
    classes = _class_names(root / "train")
    splits = {}
    for name in SPLITS:
        if (root / name).is_dir():
            _check_classes(root / name, classes)
            splits[name] = _list_images(root / name, classes)
    if "val" not in splits:
        train, val = _split_off(splits["train"], classes, config)
        splits = {**splits, "train": train, "val": val}
    return ImageFolder(root, classes, {name: splits[name] for name in SPLITS if name in splits})


def read_split(config: DataConfig, split: str, classes: tuple[str, ...]) -> ImageFolder:
    """One split alone, for a model that knows its classes; the other splits may be missing.

    Raises:
        DataError: See `read_image_folder`; or the classes are not the model's.
    """
    root = config.data_dir
    if root is not None and (root / split).is_dir():
        _check_classes(root / split, classes, "the model")
        return ImageFolder(root, classes, {split: _list_images(root / split, classes)})
    folder = read_image_folder(config)
    _check_classes(folder.root / "train", classes, "the model")
    return ImageFolder(folder.root, classes, {split: folder.split(split)})


def _class_names(folder: Path) -> tuple[str, ...]:
    classes = tuple(sorted(path.name for path in folder.iterdir() if path.is_dir()))
    if len(classes) < 2:
        raise DataError(f"{folder} has {len(classes)} class folders; at least 2 are needed")
    return classes


def _check_classes(folder: Path, classes: tuple[str, ...], whose: str = "train") -> None:
    found = {path.name for path in folder.iterdir() if path.is_dir()}
    extra, missing = sorted(found - set(classes)), sorted(set(classes) - found)
    if extra:
        raise DataError(f"{folder} has classes that {whose} lacks: {', '.join(extra)}")
    if missing:
        raise DataError(f"{folder} lacks classes that {whose} has: {', '.join(missing)}")


def _list_images(folder: Path, classes: tuple[str, ...]) -> LabelledImages:
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        images = sorted(
            path
            for path in (folder / name).rglob("*")
            if path.suffix.lower() in SUFFIXES and not path.is_dir()
        )
        if not images:
            raise DataError(
                f"class without images: {folder / name} ({', '.join(SUFFIXES)} are read)"
            )
        paths += images
        labels += [label] * len(images)
    return LabelledImages(tuple(paths), tuple(labels))


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
        tuple(images.paths[i] for i in chosen), tuple(images.labels[i] for i in chosen)
    )
