"""The check of a data set: what is in it, and whether a search would accept it."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import numpy.typing as npt

from sgformer.data.image_data import readable_samples
from sgformer.data.image_folder import ImageFolder, checked_folder, scan_image_folder
from sgformer.data_check.survey import Progress, Survey, survey
from sgformer.data_config import DataConfig
from sgformer.errors import MOST_NAMES, DataError
from sgformer.images.equal_images import (
    EqualAcross,
    EqualImages,
    Positions,
    equal_across,
    equal_in_several_classes,
    equal_within,
)
from sgformer.images.pixel_rules import PixelRules
from sgformer.images.set_decoder import rules_of_set
from sgformer.sources.class_names import composed
from sgformer.sources.image_files import SPLITS, Found, ImageFiles
from sgformer.sources.source import source_of

Classes = npt.NDArray[np.int32]


@dataclass(frozen=True)
class SplitFound:
    """Images and classes of a split; unreadable images, and classes without images, included."""

    images: int
    classes: int


@dataclass(frozen=True)
class SidesFound:
    """The smallest, the median and the largest of the images' sides, in pixels."""

    smallest: int
    median: float
    largest: int


@dataclass(frozen=True)
class ClassSizes:
    """How many images the classes of a split have; `largest_class` is the name of one of them."""

    split: str
    largest: int
    largest_class: str
    median: float
    smallest: int
    smallest_class: str

    @property
    def ratio(self) -> float:
        """Images of the largest class for each image of the smallest."""
        return self.largest / self.smallest if self.smallest else float("inf")


@dataclass(frozen=True)
class EqualFound:
    """Images that are equal byte for byte: in a split, across splits, in several classes."""

    within: dict[str, EqualImages]
    across: tuple[EqualAcross, ...]
    in_several_classes: EqualImages | None


@dataclass(frozen=True)
class DataCheck:
    """What a data set holds.

    Attributes:
        folder: The path of its folder or file.
        refused: Why a search would not accept it; None: it would.
        splits: Images and classes by split, as a search would have them; as the folders have them
            if it would not.
        val_is_of_train: Whether val is split off the train folder.
        class_sizes: Of train; without a train folder, of the first split.
        shorter_side: Pixels of the readable images' shorter sides; None if none is readable.
        longer_side: Pixels of their longer sides; None if none is readable.
        formats: The number of readable images of each format, the most frequent first.
        traits: The number of readable images of each trait (see `Survey`).
        first_of_trait: The first image of each trait.
        rules: How transparent and deep images become 8-bit RGB.
        num_unreadable: How many images cannot be read.
        unreadable: The first ten of them.
        equal: Equal images.
        passed_over: What is no image, or hidden, a sentence a kind.
    """

    folder: str
    refused: str | None
    splits: dict[str, SplitFound]
    val_is_of_train: bool
    class_sizes: ClassSizes | None
    shorter_side: SidesFound | None
    longer_side: SidesFound | None
    formats: dict[str, int]
    traits: dict[str, int]
    first_of_trait: dict[str, str]
    rules: PixelRules
    num_unreadable: int
    unreadable: tuple[str, ...]
    equal: EqualFound
    passed_over: tuple[str, ...]

    @property
    def num_images(self) -> int:
        return sum(split.images for split in self.splits.values())

    @property
    def num_readable(self) -> int:
        return self.num_images - self.num_unreadable

    def share(self, trait: str) -> float:
        """The share of the readable images that have a trait, 0..1."""
        return self.traits.get(trait, 0) / max(1, self.num_readable)


def check_folder(config: DataConfig, found: Found, progress: Progress) -> DataCheck:
    """Lists and decodes every image of a data set, and writes nothing.

    Args:
        config: Names the data set, and says how val is split off train.
        found: Is told how many files have been found so far.
        progress: Is told how many images have been decoded, of how many.

    Raises:
        DataError: The data set is missing, or a folder or file of it cannot be read.
    """
    files = scan_image_folder(config, found)
    assert config.data_dir is not None  # else it could not have been listed
    source = source_of(config.data_dir, files.names, files.places)
    folder, refused = _folder_or_reason(config, files)
    rules = PixelRules(config.background, config.max_value)
    if folder is not None:
        splits = {split: images.names for split, images in folder.splits.items()}
        rules = rules_of_set(source, splits, config)
    seen = survey(source, files.names, rules, progress)
    if folder is not None:
        refused = _reason_by_readable(folder, files.names, seen)
    return _Summary(config, files, folder, seen).of(refused, rules)


def _folder_or_reason(
    config: DataConfig, files: ImageFiles
) -> tuple[ImageFolder | None, str | None]:
    try:
        return checked_folder(config, files), None
    except DataError as error:
        return None, str(error)


def _reason_by_readable(folder: ImageFolder, names: Sequence[str], seen: Survey) -> str | None:
    try:
        readable_samples(folder, names, seen.readable)
    except DataError as error:
        return str(error)
    return None


class _Summary:
    """Sums up what was found of each image.

    Attributes:
        _class_folders: The folder of each class, in train if it is there, by composed name.
        _classes: The class of each image, a position in `_class_folders`.
        _positions: The images of each split, ascending.
    """

    def __init__(
        self, config: DataConfig, files: ImageFiles, folder: ImageFolder | None, seen: Survey
    ) -> None:
        self._root, self._files, self._seen = config.data_dir, files, seen
        self._val_is_of_train = folder is not None and folder.val_is_of_train
        folders: dict[str, str] = {}
        for names in files.class_folders.values():
            for name in names:
                folders.setdefault(composed(name), name)
        self._class_folders = folders
        index = {name: i for i, name in enumerate(folders)}
        self._classes = np.fromiter(
            (index[composed(name.split("/", 2)[1])] for name in files.names), np.int32, len(files)
        )
        self._positions = self._positions_of(folder)

    def of(self, refused: str | None, rules: PixelRules) -> DataCheck:
        files, seen = self._files, self._seen
        bad = np.flatnonzero(~seen.readable)
        return DataCheck(
            folder=str(self._root),
            refused=refused,
            splits={split: self._split(split) for split in self._positions},
            val_is_of_train=self._val_is_of_train,
            class_sizes=self._class_sizes(),
            shorter_side=_sides(seen.sides[seen.readable, 0]),
            longer_side=_sides(seen.sides[seen.readable, 1]),
            formats=dict(seen.formats.most_common()),
            traits=dict(seen.traits),
            first_of_trait=seen.first,
            rules=rules,
            num_unreadable=bad.size,
            unreadable=tuple(files.names[i] for i in bad[:MOST_NAMES]),
            equal=self._equal(),
            passed_over=files.notes,
        )

    def _positions_of(self, folder: ImageFolder | None) -> dict[str, Positions]:
        files = self._files
        split_of = np.fromiter(
            (SPLITS.index(name.split("/", 1)[0]) for name in files.names), np.int8, len(files)
        )
        splits = list(files.class_folders)
        if folder is not None and folder.val_is_of_train:
            val = frozenset(folder.splits["val"].names)
            is_val = np.fromiter((name in val for name in files.names), np.bool_, len(files))
            split_of[is_val] = SPLITS.index("val")
            splits = list(folder.splits)
        return {split: np.flatnonzero(split_of == SPLITS.index(split)) for split in splits}

    def _split(self, split: str) -> SplitFound:
        return SplitFound(len(self._positions[split]), len(self._classes_of(split)))

    def _classes_of(self, split: str) -> frozenset[str]:
        """The classes of a split's folder, also those without images."""
        source = "train" if split == "val" and self._val_is_of_train else split
        return frozenset(map(composed, self._files.class_folders[source]))

    def _class_sizes(self) -> ClassSizes | None:
        split = next(iter(self._positions), None)
        if split is None or not self._classes_of(split):
            return None
        counts = np.bincount(
            self._classes[self._positions[split]], minlength=len(self._class_folders)
        )
        present = self._classes_of(split)
        sizes = [
            (count, self._class_folders[name])
            for count, name in zip(counts.tolist(), self._class_folders, strict=True)
            if name in present
        ]
        (smallest, rare), (largest, frequent) = min(sizes), max(sizes)
        middle = float(median(size for size, _ in sizes))
        return ClassSizes(split, largest, frequent, middle, smallest, rare)

    def _equal(self) -> EqualFound:
        names, contents, readable = self._files.names, self._seen.contents, self._seen.readable
        positions_of = {split: where[readable[where]] for split, where in self._positions.items()}
        within = {
            split: equal_within(names, contents, where) for split, where in positions_of.items()
        }
        return EqualFound(
            {split: found for split, found in within.items() if found is not None},
            tuple(equal_across(names, contents, positions_of)),
            equal_in_several_classes(names, contents, self._classes, np.flatnonzero(readable)),
        )


def _sides(pixels: npt.NDArray[np.int32]) -> SidesFound | None:
    if not pixels.size:
        return None
    return SidesFound(int(pixels.min()), float(np.median(pixels)), int(pixels.max()))
