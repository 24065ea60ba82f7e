"""What a model keeps of the images that it was trained with, so that splits can be told apart."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

from sgformer.config import DataConfig
from sgformer.data.image_folder import ImageFolder, read_split
from sgformer.errors import DataError, InputError
from sgformer.images.folder_scan import SPLITS, ImageFiles

METADATA_KEY: Final = "trained_on"


@dataclass(frozen=True)
class TrainedImages:
    """A description of the images of a training, without names or paths.

    Attributes:
        val_of_train: Whether val was split off the train folder.
        digests: A hash of the names and sizes of the images in each split's folder.
        max_value: The value that became 255 in deep images; None: the range of their type.
    """

    val_of_train: bool
    digests: Mapping[str, str]
    max_value: float | None = None

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> Self | None:
        """The description in a model's metadata; None in files of earlier versions."""
        values = metadata.get(METADATA_KEY)
        return None if values is None else cls(**values)

    def as_metadata(self) -> dict[str, Any]:
        return {METADATA_KEY: asdict(self)}

    def has_same(self, split: str, other: "TrainedImages") -> bool:
        """Whether the images of a split, train or val, are the same in both."""
        if self.val_of_train != other.val_of_train:
            return False
        source = "train" if self.val_of_train else split
        return self.digests.get(source) == other.digests.get(source)

    def refuse_mixed_val(self, found: "TrainedImages", root: Path) -> None:
        """Raises DataError if val images that are found may have been trained on.

        Args:
            found: Describes images whose val split is to be evaluated.
            root: Their folder.
        """
        if self.val_of_train and found.val_of_train and not self.has_same("val", found):
            raise DataError(_on_changed_train(root))


def digests(files: ImageFiles) -> dict[str, str]:
    """A hash of the names and sizes of the images in each split's folder."""
    hashes = {split: hashlib.sha256() for split in files.class_folders}
    for name, size, _ in files:
        split, below = name.split("/", 1)
        hashes[split].update(b"\0%s\0%d" % (below.encode(errors="surrogateescape"), size))
    return {split: found.hexdigest()[:32] for split, found in hashes.items()}


def check_split(split: str) -> None:
    """Raises InputError if there is no split of this name."""
    if split not in SPLITS:
        raise InputError(f"--split: {split!r} is none of {', '.join(SPLITS)}")


def read_split_of_training(
    config: DataConfig, split: str, classes: tuple[str, ...], known: TrainedImages | None
) -> tuple[ImageFolder, tuple[str, ...]]:
    """A split as the model's training had it, and a note if it is another one.

    Args:
        config: The model's, with the image folder to read.
        split: train, val or test.
        classes: The model's classes.
        known: What the model keeps of its images; None: it was exported by an earlier version.

    Raises:
        DataError: The split cannot be read; or train and val are parts of a train folder that has
            changed since, so that it cannot be told which image belongs to which.
    """
    root = config.data_dir
    has_val = root is not None and (root / "val").is_dir()
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
        raise DataError(_on_changed_train(folder.root))
    return folder, (on_other_images(split),)


def on_other_images(split: str) -> str:
    """The note on a split whose images are not those of the training."""
    return f"these are not the {split} images of the model's training (names or sizes differ)"


def _on_changed_train(root: Path) -> str:
    """The message that train and val can no longer be told apart."""
    return (
        f"val was split off train when the model was trained, and the images in {root / 'train'} "
        "are not the same any more (names or sizes differ), so it is not known which of them the "
        "model has not seen; put them back, or evaluate on a val or test folder of other images"
    )


def _on_unknown(split: str) -> str:
    other = "train" if split == "val" else "val"
    return (
        "the model was exported by an earlier version, which did not keep what its images were: "
        f"{split} is split off train anew; if images have come or gone since the training, some "
        f"of these were its {other} images"
    )
