"""Images decoded once a node, kept memory-mapped, shared by all trainings. Needs no torch."""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import filelock
import numpy as np
import numpy.typing as npt

from sgformer.config import DataConfig
from sgformer.errors import DataError
from sgformer.image_folder import ImageFolder, LabelledImages, read_image_folder

RgbImage = npt.NDArray[np.uint8]  # (H, W, 3)
Progress = Callable[[int, int], None]  # images done, images in all
CACHE_FORMAT: Final = 1
UNREADABLE: Final = -1
NOT_STORED: Final = -2
MAX_UNREADABLE_SHARE: Final = 0.01


def decode_image(path: Path, shorter_side: int) -> RgbImage | None:
    """The image upright in RGB, its shorter side resized; None if it cannot be read."""
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError:
        return None
    if data.size == 0 or _is_cut_jpeg(data):
        return None
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
    except cv2.error:
        return None
    if image is None:
        return None
    height, width = image.shape[:2]
    scale = shorter_side / min(height, width)
    if scale != 1:
        size = (max(shorter_side, round(width * scale)), max(shorter_side, round(height * scale)))
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        image = cv2.resize(image, size, interpolation=interpolation)
    return np.asarray(image, dtype=np.uint8)


def _is_cut_jpeg(data: npt.NDArray[np.uint8]) -> bool:
    """Whether a JPEG ends before its end marker: OpenCV would fill the rest with grey."""
    content = data.tobytes()
    return content.startswith(b"\xff\xd8") and content.rfind(b"\xff\xd9") < content.rfind(
        b"\xff\xda"
    )


class DecodedImages:
    """The decoded images of a folder, by position in `paths`.

    Opening builds the memory-mapped file if the images changed or were never decoded; another
    process that opens the same meanwhile waits for it.
    """

    def __init__(
        self, root: Path, paths: Sequence[Path], config: DataConfig, progress: Progress
    ) -> None:
        self.paths = tuple(paths)
        self.shorter_side = config.decoded_pixels
        folder = _cache_folder(root, paths, config)
        try:
            with filelock.FileLock(folder.with_suffix(".lock")):
                if not folder.is_dir():
                    _build_cache(folder, paths, config, progress)
        except OSError as error:
            raise _unwritable(error) from None
        with np.load(folder / "index.npz", allow_pickle=False) as index:
            self._offsets, self._shapes = index["offsets"], index["shapes"]
        pixels = folder / "pixels.bin"
        self._pixels = (
            np.memmap(pixels, mode="r") if pixels.stat().st_size else np.empty(0, np.uint8)
        )

    def __getitem__(self, i: int) -> RgbImage:
        offset = int(self._offsets[i])
        if offset >= 0:
            height, width = (int(side) for side in self._shapes[i])
            pixels = self._pixels[offset : offset + height * width * 3]
            return np.asarray(pixels.reshape(height, width, 3))
        image = decode_image(self.paths[i], self.shorter_side)
        if image is None:
            raise DataError(f"image could be read before and cannot now: {self.paths[i]}")
        return image

    def is_readable(self, i: int) -> bool:
        return bool(self._offsets[i] != UNREADABLE)


def _cache_folder(root: Path, paths: Sequence[Path], config: DataConfig) -> Path:
    """Where the decoded images of just these files at this resolution lie."""
    cache = config.cache_dir.expanduser()
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(error) from None
    key = hashlib.sha256(f"{CACHE_FORMAT} {config.decoded_pixels} {config.cache_bytes}".encode())
    key.update(str(root.resolve()).encode())
    for path in paths:
        try:
            stat = path.stat()
            state = f"{stat.st_size}\0{stat.st_mtime_ns}"
        except OSError:  # a link to nowhere: unreadable, as decoding will find
            state = "-"
        key.update(f"{path.relative_to(root)}\0{state}\n".encode())
    return cache / key.hexdigest()[:32]


def _unwritable(error: OSError) -> DataError:
    return DataError(f"cannot write the cache of decoded images: {error} (train.data.cache_dir)")


def _build_cache(
    folder: Path, paths: Sequence[Path], config: DataConfig, progress: Progress
) -> None:
    """Writes index.npz and pixels.bin beside `folder`, then renames: there is no half cache."""
    limit = config.cache_bytes
    if limit is None:
        limit = shutil.disk_usage(folder.parent).free // 2
    offsets = np.full(len(paths), UNREADABLE, dtype=np.int64)
    shapes = np.zeros((len(paths), 2), dtype=np.int32)
    temporary = folder.with_suffix(".building")
    shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed
    temporary.mkdir()
    try:
        with (temporary / "pixels.bin").open("wb") as file:
            for i, image in enumerate(_decode_all(paths, config.decoded_pixels)):
                if image is not None:
                    shapes[i] = image.shape[:2]
                    stored = file.tell() + image.nbytes <= limit
                    offsets[i] = file.tell() if stored else NOT_STORED
                    if stored:
                        file.write(image.tobytes())
                progress(i + 1, len(paths))
            file.flush()
            os.fsync(file.fileno())
        np.savez(temporary / "index.npz", offsets=offsets, shapes=shapes)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _decode_all(paths: Sequence[Path], shorter_side: int) -> Iterator[RgbImage | None]:
    """Decodes on all cores, in order, a bounded number of images ahead."""
    cv2.setNumThreads(1)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for start in range(0, len(paths), 512):
            chunk = paths[start : start + 512]
            yield from pool.map(lambda path: decode_image(path, shorter_side), chunk)


@dataclass(frozen=True)
class ImageData:
    """What a training reads: decoded images, and each split's readable ones with their labels."""

    folder: ImageFolder
    images: DecodedImages
    splits: dict[str, tuple[tuple[int, int], ...]]  # (position in images, label)
    unreadable: tuple[Path, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        return self.folder.classes

    def samples(self, split: str) -> tuple[tuple[int, int], ...]:
        """(position in images, label) of a split's readable images.

        Raises:
            DataError: The folder has no such split.
        """
        self.folder.split(split)
        return self.splits[split]


def no_progress(done: int, total: int) -> None:
    """Tells nobody."""


def load_image_data(config: DataConfig, progress: Progress = no_progress) -> ImageData:
    """The folder of the config, decoded.

    Raises:
        DataError: See `read_image_folder` and `decode_folder`.
    """
    return decode_folder(read_image_folder(config), config, progress)


def decode_folder(
    folder: ImageFolder, config: DataConfig, progress: Progress = no_progress
) -> ImageData:
    """The images of a folder, decoded or mapped from the cache.

    Raises:
        DataError: 1 % or more of the images cannot be read, or the cache cannot be written.
    """
    paths = sorted(path for images in folder.splits.values() for path in images.paths)
    images = DecodedImages(folder.root, paths, config, progress)
    unreadable = tuple(path for i, path in enumerate(paths) if not images.is_readable(i))
    if unreadable and len(unreadable) >= MAX_UNREADABLE_SHARE * len(paths):
        first = "\n".join(f"  {path}" for path in unreadable[:10])
        raise DataError(
            f"{len(unreadable)} of {len(paths)} images in {folder.root} cannot be read (fewer "
            f"than 1 % are passed over); the first:\n{first}"
        )
    positions = {path: i for i, path in enumerate(paths)}
    splits = {
        name: _readable_samples(labelled, positions, images)
        for name, labelled in folder.splits.items()
    }
    return ImageData(folder, images, splits, unreadable)


def _readable_samples(
    labelled: LabelledImages, positions: dict[Path, int], images: DecodedImages
) -> tuple[tuple[int, int], ...]:
    pairs = zip(labelled.paths, labelled.labels, strict=True)
    samples = ((positions[path], label) for path, label in pairs)
    return tuple(sample for sample in samples if images.is_readable(sample[0]))
