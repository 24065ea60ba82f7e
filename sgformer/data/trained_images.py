"""What a model keeps of the images that it was trained with, so that splits can be told apart."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from sgformer.config import DataConfig
from sgformer.images.folder_scan import SPLITS, ImageFiles
from sgformer.data.image_folder import ImageFolder, read_split
from sgformer.errors import DataError, InputError
from sgformer.images.pixel_rules import WHITE_OF_16_BITS

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

    def applied_to(self, data: DataConfig) -> DataConfig:
        """The config with which images are decoded for the model, whatever set they are of."""
        return data.model_copy(update={"max_value": self.max_value or WHITE_OF_16_BITS})


def digests(files: ImageFiles) -> dict[str, str]:
    """A hash of the names and sizes of the images in each split's folder."""
    hashes = {split: hashlib.sha256() for split in files.class_folders}
    for name, size, _ in files:
        split, below = name.split("/", 1)
        hashes[split].update(b"\0%s\0%d" % (below.encode(errors="surrogateescape"), size))
    return {split: found.hexdigest()[:32] for split, found in hashes.items()}


def read_split_of_training(
    config: DataConfig, split: str, classes: tuple[str, ...], known: TrainedImages | None
) -> tuple[ImageFolder, tuple[str, ...]]:
    """A split as the model's training had it, and notes on where it is not the training's.

    Args:
        config: The model's, with the image folder to read.
        split: train, val or test.
        classes: The model's classes.
        known: What the model keeps of its images; None: it was exported by an earlier version.

    Raises:
        InputError: There is no such split.
        DataError: The split cannot be read; or train and val are parts of a train folder that has
            changed since, so that it cannot be told which image belongs to which.
    """
    if split not in SPLITS:
        raise InputError(f"--split: {split!r} is none of {', '.join(SPLITS)}")
    root = config.data_dir
    has_val = root is not None and (root / "val").is_dir()
    of_train = not has_val if known is None else known.val_of_train
    if split == "val" and has_val:
        of_train = False
    folder = read_split(config, split, classes, of_train=of_train)
    if split == "test":
        return folder, folder.notes
    if known is None:
        return folder, (*folder.notes, *_on_unknown(split, of_train))
    assert folder.files is not None
    source = "train" if of_train else split
    is_same = digests(folder.files)[source] == known.digests.get(source)
    if is_same:
        return folder, folder.notes
    if of_train:
        raise DataError(
            f"the images in {folder.root / 'train'} are not those of the model's training (names "
            "or sizes differ), so it is not known which of them are val's, which the model has "
            "not seen: val was split off train; put the images back, or put those to evaluate "
            "into a folder of their own, val or test"
        )
    note = f"these are not the {split} images of the model's training (names or sizes differ)"
    return folder, (*folder.notes, note)


def _on_unknown(split: str, of_train: bool) -> tuple[str, ...]:
    """The note on a split of a model that does not tell its images."""
    if not of_train:
        return ()
    return (
        f"the model was exported by an earlier version and does not tell its images: {split} is "
        "split off train as it was then; if images have come or gone since, it has images of "
        f"{'train' if split == 'val' else 'val'}",
    )
