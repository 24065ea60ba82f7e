"""Reads a cache of decoded images: each node decodes an image once, for all trainings.

Opening and reading a cache needs no torch. `cache_building` builds caches.
"""

import contextlib
import hashlib
import json
import os
import weakref
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from sgformer.data.cache_place import CACHE_FORMAT, FACTS, cache_place, caches, hold
from sgformer.data.image_folder import ImageFolder
from sgformer.data_config import DataConfig
from sgformer.errors import DataError
from sgformer.images.decoding import RgbImage, decode_image
from sgformer.images.set_decoder import rules_name, rules_of
from sgformer.sources.folder_scan import size_and_time
from sgformer.sources.image_files import Places
from sgformer.sources.source import source_of

Progress = Callable[[int, int], None]  # images decoded, images in all
Bytes = npt.NDArray[np.uint8]  # (N,)
PIXELS, NAMES, INDEX = "pixels.bin", "names", "index.npz"
# In place of an offset: the image could not be decoded; the cache file had no room for it.
UNREADABLE: Final = -1
NOT_STORED: Final = -2
# A tenth of the raw size at 256 pixels. With whole colours (4:4:4) the pixels are nearer, and a
# pretrained model answers more alike, than with halved ones at quality 90, of the same size.
# Source: benchmarks/large_data.py --table encoding.
JPEG: Final = (
    *(cv2.IMWRITE_JPEG_QUALITY, 85),
    *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
)


@dataclass(frozen=True)
class ImagesId:
    """Identifies the images that a search uses.

    Attributes:
        files: Hash of the files on this disk: folder, names, sizes and modification times.
        content: Hash of names and sizes only, equal for a copy on another disk.
        features: Digest of the images' features; None: they have none.
    """

    files: str
    content: str
    features: str | None = None


class DecodedImages:
    """The decoded images of a data set; an image's index is its position in `names`.

    The cache is opened read-only, and not mapped: reading works with any size of cache and
    memory, and a cache that another process removes stays readable.

    Attributes:
        root: The folder, manifest or parquet file of the images.
        shorter_side: Pixels of each image's shorter side.
        id: Hashes that identify the images.
        names: The images' names, sorted.
        cache: The folder of the cache.
        full: Why not all images are stored, in words; None: all are.
        room: Bytes of which more would have stored more images; None: no room helps.
        rules: How deep and transparent images were decoded.
        digests: A hash of names and sizes for each split's folder.
        class_order: All classes, if they are not in the order of their names; else empty.
        notes: What is odd in the images, a sentence each.
    """

    def __init__(
        self, cache: Path, root: Path, shorter_side: int, places: Places | None = None
    ) -> None:
        self.cache, self.root, self.shorter_side = cache, root, shorter_side
        self._held = hold(cache)
        with _refusing_damage(cache):
            self._open(cache, places)

    def _open(self, cache: Path, places: Places | None) -> None:
        facts = json.loads((cache / FACTS).read_text(encoding="utf-8"))
        self.id = ImagesId(facts["files"], facts["content"])
        self.full: str | None = facts["full"]
        self.room: int | None = facts["room"]
        self.names = _read_names(cache)
        self.rules, self.notes = rules_of(facts), tuple(facts["notes"])
        self.digests: dict[str, str] = facts["digests"]
        self.class_order = tuple(facts.get("class_order", ()))
        with np.load(cache / INDEX, allow_pickle=False) as index:
            self._offsets, self._lengths = index["offsets"], index["lengths"]
            self._shapes, self._encoded = index["shapes"], index["encoded"]
            # Caches of earlier versions are of folders.
            self._times_of_containers: dict[str, int] = facts.get("containers") or {}
            if self._times_of_containers and places is None:
                places = Places(tuple(self._times_of_containers), index["where"])
        self._source = source_of(self.root, self.names, places)
        if len(self._offsets) != len(self.names):
            raise ValueError(f"{len(self._offsets)} images and {len(self.names)} names")
        self._pixels = os.open(cache / PIXELS, os.O_RDONLY)
        weakref.finalize(self, os.close, self._pixels)
        # Images are read in random order: what follows one on the disk would fill memory.
        os.posix_fadvise(self._pixels, 0, 0, os.POSIX_FADV_RANDOM)

    def __getitem__(self, i: int) -> RgbImage:
        """Image i, (H, W, 3) uint8; decoded from its file if the cache had no room for it."""
        offset, is_encoded = int(self._offsets[i]), bool(self._encoded[i])
        if offset >= 0:
            stored = self._read(offset, int(self._lengths[i]))
            height, width = (int(side) for side in self._shapes[i])
            return from_jpeg(stored) if is_encoded else stored.reshape(height, width, 3)
        image = decode_image(self._source.read(self.names[i]), self.shorter_side, self.rules)
        if image is None:
            raise DataError(f"image could be read before and cannot now: {self.where(i)}")
        # A training does not depend on what the cache has room for.
        return from_jpeg(to_jpeg(image)) if is_encoded else image

    def content(self, i: int) -> bytes:
        """The bytes of image i's file; none if it cannot be read now."""
        return self._source.read(self.names[i])

    def where(self, i: int) -> str:
        """The path of image i, or where it lies in a tar or parquet file."""
        return self._source.where(self.names[i])

    @property
    def finds_the_others(self) -> bool:
        """Whether the files are unchanged that hold images for which the cache had no room."""
        times = self._times_of_containers
        if not times or not self.num_not_stored:
            return True
        return all((self.root / name).stat().st_mtime_ns == time for name, time in times.items())

    @property
    def readable(self) -> npt.NDArray[np.bool_]:
        """(N,) booleans: true for images that could be decoded."""
        return np.asarray(self._offsets != UNREADABLE)

    @property
    def num_not_stored(self) -> int:
        """How many readable images the cache has no room for."""
        return int(np.count_nonzero(self._offsets == NOT_STORED))

    def _read(self, offset: int, length: int) -> Bytes:
        stored = np.empty(length, dtype=np.uint8)
        done = 0
        while done < length:
            num_read = os.preadv(self._pixels, [stored[done:].data], offset + done)
            if num_read == 0:
                raise DataError(
                    f"the cache of decoded images {self.cache} is damaged: its {PIXELS} is too "
                    "short; remove the folder, and the images are decoded anew"
                )
            done += num_read
        return stored


@contextlib.contextmanager
def _refusing_damage(cache: Path) -> Iterator[None]:
    """Raises OSError if a file of the cache is damaged, as by a crash of the machine."""
    try:
        yield
    except (ValueError, LookupError, EOFError, zipfile.BadZipFile) as error:
        raise OSError(f"the cache {cache} is damaged: {error}") from None


def to_jpeg(image: RgbImage) -> Bytes:
    """The image as a JPEG, of a tenth of its size."""
    ok, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), JPEG)
    assert ok, "OpenCV encodes any 8-bit image"
    return np.asarray(encoded, dtype=np.uint8)


def from_jpeg(encoded: Bytes) -> RgbImage:
    """The image (H, W, 3) uint8 of a JPEG."""
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB), dtype=np.uint8)


def no_progress(done: int, total: int) -> None:
    """A `Progress` that shows nothing."""


def identify(folder: ImageFolder) -> ImagesId:
    """The hashes that identify a folder's images."""
    files, content = hashlib.sha256(os.fsencode(folder.root.resolve())), hashlib.sha256()
    for name, size, changed in _sizes_and_times(folder):
        encoded = os.fsencode(name)
        files.update(b"\0%s\0%d\0%d" % (encoded, size, changed))
        content.update(b"\0%s\0%d" % (encoded, size))
    if folder.class_order:
        order = b"\0order\0%s" % "\0".join(folder.class_order).encode()
        files.update(order)
        content.update(order)
    if folder.places is not None:  # a cache of a copy is read by the places that it keeps
        content.update(np.ascontiguousarray(folder.places.where).tobytes())
    return ImagesId(files.hexdigest()[:32], content.hexdigest()[:32])


def _sizes_and_times(folder: ImageFolder) -> Iterator[tuple[str, int, int]]:
    """Each image's name, size and time, sorted by name; from the scan, if there was one."""
    if folder.files is None:
        source = folder.source
        yield from ((name, *size_and_time(source.where(name))) for name in folder.names)
    else:
        wanted = set(folder.names)
        yield from (file for file in folder.files if file[0] in wanted)


def cache_folder(config: DataConfig, images: ImagesId, *, is_whole: bool = True) -> Path:
    """The folder of the cache of these files, as the config has them decoded, on this node.

    Where nothing can be written, a cache that was built elsewhere of images with the same names
    and sizes stands for it.

    Args:
        config: How the images are decoded.
        images: Identifies the files.
        is_whole: Whether the images are a set to train with, and not a split alone, by which the
            range of deep images is not measured.
    """
    how = "" if config.cache_format == "auto" else f"-{config.cache_format}"
    how += rules_name(config) + ("" if is_whole else "-part")
    ending = f"-{config.decoded_pixels}{how}-v{CACHE_FORMAT}"
    place = cache_place(config.cache_dir)
    cache = place / f"{images.files}{ending}"
    if cache.is_dir() or os.access(place, os.W_OK):
        return cache
    alike = (other for other in caches(place) if other.name.endswith(ending))
    return next((other for other in alike if _content_of(other) == images.content), cache)


def open_cache(config: DataConfig, images: ImagesId) -> DecodedImages:
    """Opens the cache of these images without reading the image folder.

    Raises:
        OSError: This node has no cache of these images, or not with all that it needs.
    """
    cache = cache_folder(config, images)
    opened = DecodedImages(cache, config.data_dir or Path(), config.decoded_pixels)
    if not opened.finds_the_others:
        raise OSError(f"shards or parquet files have changed since the cache was built: {cache}")
    return opened


def _content_of(cache: Path) -> str | None:
    try:
        facts = json.loads((cache / FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return str(facts.get("content"))


def _read_names(cache: Path) -> tuple[str, ...]:
    content = (cache / NAMES).read_bytes()
    return tuple(os.fsdecode(name) for name in content.split(b"\0"))
