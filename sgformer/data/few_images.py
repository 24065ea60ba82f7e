"""A few images of a data set that stand for all of them while a training's cost is measured."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sgformer.data.cache_building import open_or_build_cache, stores_jpegs
from sgformer.data.image_cache import identify, no_progress
from sgformer.data.image_data import ImageData, with_features
from sgformer.data.image_folder import ImageFolder, LabelledImages
from sgformer.data_config import DataConfig
from sgformer.errors import DataError


@dataclass(frozen=True)
class FewImages:
    """A few train images of a data set, and how many images of each class it has.

    Attributes:
        folder: The data set, with these images only, as its train split.
        train_labels: The labels of all its train images, (N,).
        num_val: The number of its val images.
    """

    folder: ImageFolder
    train_labels: npt.NDArray[np.int64]
    num_val: int

    def decoded(self, config: DataConfig, cache: Path, most_val: int) -> ImageData:
        """As many images as the data set has, for a trainer; the few ones are decoded for all.

        Labels are those of the data set, so the pixels of an image need not be of its class.

        Args:
            config: The resolved settings of the images.
            cache: An empty folder, which gets the decoded images.
            most_val: The most images that val has.

        Raises:
            DataError: None of the images can be read.
        """
        encoded = "jpeg" if stores_jpegs(config, len(self.train_labels)) else "raw"
        update = {"cache_dir": cache, "cache_bytes": None, "cache_format": encoded}
        data, few = config.model_copy(update=update), self.folder
        images = open_or_build_cache(few, identify(few), data, no_progress)
        readable = np.flatnonzero(images.readable)
        if not len(readable):
            raise DataError(f"none of {len(images.names)} train images of {few.root} can be read")
        labels = {"train": self.train_labels, "val": self.train_labels}
        sizes = {"train": len(self.train_labels), "val": min(self.num_val, most_val)}
        splits = {
            split: np.stack([np.resize(readable, num), np.resize(labels[split], num)], axis=1)
            for split, num in sizes.items()
        }
        whole = replace(few, splits=dict.fromkeys(sizes, few.splits["train"]))
        return with_features(ImageData(whole, images, splits, ()), config)


def few_images(folder: ImageFolder, most: int) -> FewImages:
    """At most so many of a data set's train images."""
    train, files = folder.splits["train"], folder.files
    assert files is not None, "the data set was listed"
    label_of = dict(zip(train.names, train.labels, strict=True))
    chosen = set(folder.source.spread(sorted(train.names), most))
    where = np.array([i for i, name in enumerate(files.names) if name in chosen], np.int64)
    names = tuple(files.names[i] for i in where)
    few = replace(
        files,
        names=names,
        sizes=files.sizes[where],
        times=files.times[where],
        notes=(),
        places=None if files.places is None else files.places.of(where),
    )
    images = LabelledImages(names, tuple(label_of[name] for name in names))
    return FewImages(
        ImageFolder(folder.root, folder.classes, {"train": images}, few),
        np.array(train.labels, np.int64),
        len(folder.splits["val"]),
    )
