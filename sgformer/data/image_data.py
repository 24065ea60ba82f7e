"""The splits of an image folder as decoded images with labels, which trainings read."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sgformer.data.cache_building import (
    MAX_UNREADABLE_SHARE,
    open_or_build_cache,
    refuse_unreadable,
)
from sgformer.data.cache_place import cache_place, make_place
from sgformer.data.image_cache import (
    DecodedImages,
    ImagesId,
    Progress,
    identify,
    no_progress,
    open_cache,
)
from sgformer.data.image_features import ImageFeatures, ImageRows, load_features
from sgformer.data.image_folder import ImageFolder, LabelledImages, folder_of, read_image_folder
from sgformer.data_config import DataConfig
from sgformer.errors import ConfigError, DataError, listed
from sgformer.features.columns import FeatureColumns
from sgformer.images.trained_images import TrainedImages
from sgformer.sources.image_files import Found, not_told

Samples = npt.NDArray[np.int64]  # (N, 2): position among the decoded images, label


@dataclass(frozen=True)
class ImageData:
    """The decoded images of a folder, and the samples of each split.

    Attributes:
        folder: The image folder, unreadable images included.
        images: The decoded images.
        splits: The readable images of each split: (N, 2) positions in `images` and labels.
        unreadable: Paths of the images that could not be decoded, or where they lie.
        features: The images' features; None: they have none.
    """

    folder: ImageFolder
    images: DecodedImages
    splits: dict[str, Samples]
    unreadable: tuple[str, ...]
    features: ImageFeatures | None = None

    @property
    def cache_note(self) -> str | None:
        """What the user should know of the cache: that it lacks images, and why."""
        images = self.images
        if not images.num_not_stored:
            return None
        return (
            f"{images.num_not_stored} of {len(images.names)} decoded images are not kept in "
            f"{images.cache.parent}, because {images.full}: they are decoded again each time "
            "they are needed; make room there, or set train.data.cache_dir (or SGFORMER_CACHE), "
            "train.data.cache_bytes or train.data.cache_format"
        )

    @property
    def classes(self) -> tuple[str, ...]:
        return self.folder.classes

    @property
    def trained_images(self) -> TrainedImages:
        """What a model that is trained with these images keeps of them."""
        return TrainedImages(
            self.folder.val_is_of_train, self.images.digests, self.images.rules.max_value
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of the images, a sentence each."""
        notes = [*self.folder.notes, *self.images.notes]
        if self.unreadable:
            names = listed(self.unreadable)
            notes.append(f"{len(self.unreadable)} unreadable images are passed over: {names}")
        if self.cache_note is not None:
            notes.append(self.cache_note)
        if self.features is not None:
            notes += self.features.notes
        return tuple(notes)

    def samples(self, split: str) -> Samples:
        """(N, 2) positions in `images` and labels of a split's readable images.

        Raises:
            DataError: The folder has no such split.
        """
        self.folder.split(split)
        return self.splits[split]


def stratified_part(samples: Samples, num_images: int | None, seed: int) -> Samples:
    """A fixed part of a split: of each class the same share, and at least one image.

    Args:
        samples: (N, 2) positions and labels of the split's images.
        num_images: How many images the part has; None, or N and more: all of them.
        seed: Chooses the images.

    Raises:
        ConfigError: The part would have fewer images than there are classes.
    """
    if num_images is None or num_images >= len(samples):
        return samples
    counts = np.bincount(samples[:, 1])
    check_part(num_images, int(np.count_nonzero(counts)))
    order = np.random.default_rng(seed).permutation(len(samples))
    labels = samples[order, 1]
    # Position of each image within its class, in the shuffled order: 0, 1, ...
    by_class = np.argsort(labels, kind="stable")
    within = np.empty(len(samples), dtype=np.int64)
    within[by_class] = np.arange(len(samples)) - np.repeat(np.cumsum(counts) - counts, counts)
    # The first images of all classes come first, then the rest, evenly over each class.
    turn = np.where(within == 0, -1.0, (within + 0.5) / counts[labels])
    chosen = order[np.argsort(turn, kind="stable")[:num_images]]
    return samples[np.sort(chosen)]


def check_part(num_images: int | None, num_classes: int) -> None:
    """Raises ConfigError if `eval_images` has no room for an image of each class."""
    if num_images is not None and num_images < num_classes:
        raise ConfigError(
            f"train.eval_images: must be at least {num_classes}, an image of each class, got "
            f"{num_images}"
        )


def load_image_data(
    config: DataConfig,
    progress: Progress = no_progress,
    expected: ImagesId | None = None,
    found: Found = not_told,
) -> ImageData:
    """The decoded images of the config's folder, from the cache if they were decoded before.

    With `expected`, the cache of these images is opened without reading the folder again, so a
    search keeps the images that it began with even if the folder changes.

    Raises:
        DataError: See `read_image_folder` and `decode_folder`.
    """
    if expected is not None:
        with contextlib.suppress(OSError):  # there is no cache here, or it is being removed
            images = open_cache(config, expected)
            data = _assemble(folder_of(config, images.names, images.class_order), images)
            return with_features(data, config, expected=expected.features)
    with contextlib.suppress(OSError):  # where the list of files is kept, too
        make_place(cache_place(config.cache_dir), config.cache_dir)
    data = decode_folder(read_image_folder(config, found), config, progress, expected)
    return with_features(data, config, expected=None if expected is None else expected.features)


def with_features(
    data: ImageData,
    config: DataConfig,
    columns: FeatureColumns | None = None,
    expected: str | None = None,
) -> ImageData:
    """The images with the features that the config names, if it names any.

    Args:
        data: The images.
        config: Names the table.
        columns: The columns of a trained model; None: they are fitted to the train images.
        expected: The digest that the features must have; None: any will do.

    Raises:
        DataError: The features cannot be read, or are not the expected ones.
    """
    if config.features is None:
        return data
    rows = ImageRows(
        data.images.names,
        {split: samples[:, 0] for split, samples in data.splits.items()},
        data.folder.root.is_dir(),
        data.images.id.content,
    )
    features = load_features(config, rows, columns)
    if expected not in (None, features.digest):
        raise DataError(
            f"the features in {config.features} have changed since the search began; put them "
            "back and --resume, or begin another study"
        )
    return replace(data, features=features)


def decode_folder(
    folder: ImageFolder,
    config: DataConfig,
    progress: Progress = no_progress,
    expected: ImagesId | None = None,
) -> ImageData:
    """The decoded images of a folder, from the cache if they were decoded before.

    Raises:
        DataError: 1 % or more of the images cannot be read, a split has no readable image of a
            class, the cache cannot be written, or the images are not the expected ones.
    """
    found = identify(folder)
    if expected is not None and found.content != expected.content:
        raise DataError(
            f"the images in {folder.root} have changed since the search began (names or sizes "
            "differ); put them back and --resume, or begin another study"
        )
    return _assemble(folder, open_or_build_cache(folder, found, config, progress))


def _assemble(folder: ImageFolder, images: DecodedImages) -> ImageData:
    """Joins labels and decoded images."""
    splits = readable_samples(folder, images.names, images.readable)
    unreadable = tuple(images.where(int(i)) for i in np.flatnonzero(~images.readable))
    return ImageData(folder, images, splits, unreadable)


def readable_samples(
    folder: ImageFolder, names: Sequence[str], readable: npt.NDArray[np.bool_]
) -> dict[str, Samples]:
    """The readable images of each split.

    Args:
        folder: The image folder.
        names: The names of all its images, in the order of the positions.
        readable: Which of them can be read.

    Raises:
        DataError: Too many images cannot be read, or none of a class in a split.
    """
    bad = np.flatnonzero(~readable).tolist()
    if bad and len(bad) >= MAX_UNREADABLE_SHARE * len(names):
        where = folder.source.where
        refuse_unreadable(folder.root, [where(names[i]) for i in bad], str(len(names)))
    positions = {name: i for i, name in enumerate(names)}
    splits = {}
    for split, labelled in folder.splits.items():
        splits[split] = _samples_of(labelled, positions, readable)
        missing = set(range(len(folder.classes))) - set(splits[split][:, 1].tolist())
        if missing:
            classes = listed(folder.classes[label] for label in sorted(missing))
            raise DataError(f"no image of these classes in {split} can be read: {classes}")
    return splits


def _samples_of(
    labelled: LabelledImages, positions: dict[str, int], readable: npt.NDArray[np.bool_]
) -> Samples:
    where = np.array([positions[name] for name in labelled.names], dtype=np.int64)
    samples = np.stack([where, np.array(labelled.labels, dtype=np.int64)], axis=1)
    return np.asarray(samples[readable[where]])
