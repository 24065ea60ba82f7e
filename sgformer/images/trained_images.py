"""What a model keeps of the images that it was trained with, so that splits can be told apart."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

from sgformer.errors import DataError
from sgformer.sources.image_files import ImageFiles

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
        if not found.val_of_train:
            return
        if self.val_of_train and not self.has_same("val", found):
            raise DataError(on_changed_train(root))
        if not self.val_of_train and self.digests.get("train") == found.digests.get("train"):
            raise DataError(
                f"the model was trained on all images in {root / 'train'}, and {root / 'val'} is "
                "not there; put it back"
            )


def digests(files: ImageFiles) -> dict[str, str]:
    """A hash of the names and sizes of the images in each split's folder."""
    hashes = {split: hashlib.sha256() for split in files.class_folders}
    for name, size, _ in files:
        split, below = name.split("/", 1)
        hashes[split].update(b"\0%s\0%d" % (below.encode(errors="surrogateescape"), size))
    return {split: found.hexdigest()[:32] for split, found in hashes.items()}


def on_other_images(split: str) -> str:
    """The note on a split whose images are not those of the training."""
    return f"these are not the {split} images of the model's training (names or sizes differ)"


def on_changed_train(root: Path) -> str:
    """The message that train and val can no longer be told apart."""
    return (
        f"val was split off train when the model was trained, and the train images of {root} "
        "are not the same any more (names or sizes differ), so it is not known which of them the "
        "model has not seen; put them back, or evaluate on a val or test folder of other images"
    )
