"""Builds a cache of decoded images. Resizing images needs torch, which is imported for it."""

import contextlib
import errno
import fcntl
import json
import os
import random
import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from io import FileIO
from pathlib import Path
from typing import Any, Final, NamedTuple

import cv2
import filelock
import numpy as np

from sgformer.config import DataConfig
from sgformer.data.cache_place import (
    CACHE_FORMAT,
    FACTS,
    Room,
    caches,
    is_old,
    make_place,
    remove_unless_used,
)
from sgformer.data.decoding import decode_image
from sgformer.data.image_cache import (
    INDEX,
    NAMES,
    NOT_STORED,
    PIXELS,
    UNREADABLE,
    Bytes,
    DecodedImages,
    ImagesId,
    Progress,
    cache_folder,
    to_jpeg,
)
from sgformer.data.image_folder import ImageFolder
from sgformer.disk import is_full
from sgformer.errors import DataError

# A split of more bytes, counted as square images, is stored as JPEGs (data.cache_format: auto).
RAW_BYTES: Final = 8 * 2**30
LONGEST_JPEG: Final = 65_500  # pixels a side, of libjpeg
ORDER: Final = ("val", "train", "test")  # of storing: what is read most comes first
SYNC_BYTES: Final = 2**28  # written between two waits for the disk, which may be over its quota
SPARE: Final = 2**16  # bytes kept for the headers of small files
MORE: Final = 1.25  # a cache that lacks images is built anew if it can grow by this factor
MAX_UNREADABLE_SHARE: Final = 0.01
PROBED: Final = 1000  # images that are tried before the others
# Of PROBED images. If 1 % of all are unreadable, one probe in 20,000 has as many by chance.
MOST_IN_PROBE: Final = 25


class Stored(NamedTuple):
    """A decoded image as the cache keeps it: raw pixels or a JPEG."""

    data: Bytes
    shape: tuple[int, int]
    is_encoded: bool


def open_or_build_cache(
    folder: ImageFolder, images: ImagesId, config: DataConfig, progress: Progress
) -> DecodedImages:
    """Opens the cache of these images, and builds it first if there is none.

    If another process is building the same cache, this process waits until it is built. A cache
    that lacks images for want of room is built anew when there is more.

    Raises:
        DataError: The cache cannot be written, or too many images cannot be read.
    """
    cache = cache_folder(config, images)
    opened = _opened(cache, folder, config)
    if opened is not None:
        return opened
    try:
        make_place(cache.parent, config.cache_dir)
        with filelock.FileLock(cache.with_suffix(".lock")):
            opened = _opened(cache, folder, config)
            if opened is not None:
                return opened
            if cache.is_dir() and not remove_unless_used(cache):
                return DecodedImages(cache, folder.root, config.decoded_pixels)
            return _built(cache, folder, images, config, progress)
    except OSError as error:
        raise DataError(
            f"cannot write the cache of decoded images: {error} (train.data.cache_dir)"
        ) from None


def _opened(cache: Path, folder: ImageFolder, config: DataConfig) -> DecodedImages | None:
    """The cache; None if there is none, or if it lacks images and can grow."""
    try:
        images = DecodedImages(cache, folder.root, config.decoded_pixels)
        if images.room is None or not os.access(cache.parent, os.W_OK):
            return images
        most = Room(cache.parent, cache, config.cache_bytes).most
        return None if most > MORE * images.room else images
    except OSError:
        return None


def _built(
    cache: Path, folder: ImageFolder, images: ImagesId, config: DataConfig, progress: Progress
) -> DecodedImages:
    """Builds the cache in another folder and renames that to `cache`, which is never partial."""
    temporary = cache.with_suffix(".building")
    shutil.rmtree(temporary, ignore_errors=True)  # left by a process that was killed
    temporary.mkdir()
    facts = {
        "files": images.files,
        "content": images.content,
        "root": str(folder.root.resolve()),
        "splits": list(folder.splits),
        "decoded_pixels": config.decoded_pixels,
    }
    try:
        with FileIO(temporary / FACTS, "w") as held:  # locked, it says that the cache is in use
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(held, fcntl.LOCK_SH)
            room = Room(cache.parent, temporary, config.cache_bytes)
            facts |= _fill(temporary, folder, config, room, progress)
            held.write(json.dumps(facts).encode())
            os.fsync(held)
            temporary.rename(cache)
            _remove_outdated(cache, facts)
            return DecodedImages(cache, folder.root, config.decoded_pixels)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _fill(
    cache: Path, folder: ImageFolder, config: DataConfig, room: Room, progress: Progress
) -> dict[str, Any]:
    """Decodes the images and writes the cache's files; returns why it lacks some, if it does."""
    names = folder.names
    _probe(folder, names, config)
    joined = b"\0".join(os.fsencode(name) for name in names)
    index = _Index(len(names))
    file = _PixelFile(cache / PIXELS, room, len(joined) + index.num_bytes + SPARE)
    position = {name: i for i, name in enumerate(names)}
    order = _in_order(folder, config)
    paths = [folder.root / name for name, _ in order]
    bad: list[Path] = []
    with contextlib.closing(file):
        decoded = _decode_all(paths, [is_encoded for _, is_encoded in order], config)
        for done, ((name, is_encoded), stored) in enumerate(zip(order, decoded, strict=True), 1):
            i = position[name]
            if stored is None:
                bad.append(folder.root / name)
                index.encoded[i] = is_encoded
            else:
                index.note(i, file.add(stored.data), stored)
            if done >= PROBED and len(bad) >= MAX_UNREADABLE_SHARE * len(names):
                refuse_unreadable(folder.root, bad, f"the first {done} of {len(names)}")
            progress(done, len(names))
        file.finish()
    index.forget_beyond(file.size)
    index.write(cache / INDEX)
    (cache / NAMES).write_bytes(joined)
    return {"full": file.full, "room": file.room}


class _Index:
    """Where each image lies in the file of pixels, and how it is stored."""

    def __init__(self, num_images: int) -> None:
        self.offsets = np.full(num_images, UNREADABLE, dtype=np.int64)
        self.lengths = np.zeros(num_images, dtype=np.int32)
        self.shapes = np.zeros((num_images, 2), dtype=np.int32)
        self.encoded = np.zeros(num_images, dtype=np.bool_)

    @property
    def num_bytes(self) -> int:
        return sum(array.nbytes for array in vars(self).values())

    def note(self, i: int, offset: int, image: Stored) -> None:
        self.offsets[i], self.lengths[i] = offset, len(image.data)
        self.shapes[i], self.encoded[i] = image.shape, image.is_encoded

    def forget_beyond(self, size: int) -> None:
        """Notes that images beyond the end of the file of pixels are not stored."""
        self.offsets[self.offsets + self.lengths > size] = NOT_STORED

    def write(self, path: Path) -> None:
        np.savez(path, **vars(self))


class _PixelFile:
    """Stores images one behind another, until the cache's room or the disk's ends.

    Args:
        path: The file.
        room: What the cache may take.
        reserve: Bytes that the cache's other files need.

    Attributes:
        size: Bytes of the file that hold images.
        full: Why images were left out; None: none was.
        room: The bytes that the cache could have; None: unknown, or none was left out.
    """

    def __init__(self, path: Path, room: Room, reserve: int) -> None:
        self._file, self._room, self._reserve = FileIO(path, "w"), room, reserve
        self.size = self._synced = 0
        self.full: str | None = None
        self.room: int | None = None

    def add(self, data: Bytes) -> int:
        """Stores an image; returns its offset, or NOT_STORED."""
        if self.full is not None:
            return NOT_STORED
        offset, end = self.size, self.size + len(data)
        if not self._room.has(end + self._reserve):
            self.full, self.room = "data.cache_bytes leaves no room", self._room.given
            return NOT_STORED
        with self._noticing_full():
            left = memoryview(data)
            while left:
                left = left[self._file.write(left) :]
            self.size = end
            if end - self._synced >= SYNC_BYTES:
                self._sync()
        return offset if self.full is None else NOT_STORED

    def finish(self) -> None:
        """Waits until the disk has everything."""
        if self.full is None:
            with self._noticing_full():
                self._sync()

    def close(self) -> None:
        self._file.close()

    def _sync(self) -> None:
        os.fsync(self._file)
        self._synced = self.size

    @contextlib.contextmanager
    def _noticing_full(self) -> Iterator[None]:
        """Keeps what is certainly on the disk when that is full, less room for other files."""
        try:
            yield
        except OSError as error:
            if not is_full(error):
                raise
            with contextlib.suppress(OSError):
                self._sync()
            self.size = max(0, self._synced - self._reserve)
            self._file.truncate(self.size)
            is_quota = error.errno == errno.EDQUOT
            self.full = "the user's quota of its disk is reached" if is_quota else "its disk is full"
            self.room = None if is_quota else self.size


def _probe(folder: ImageFolder, names: Sequence[str], config: DataConfig) -> None:
    """Tries some images of a large folder, so that hours are not spent on a broken one.

    Raises:
        DataError: Far more of them cannot be read than are passed over.
    """
    if len(names) < 10 * PROBED:
        return
    chosen = random.Random(0).sample(names, PROBED)
    paths = [folder.root / name for name in chosen]
    decoded = _decode_all(paths, [False] * PROBED, config)
    bad = [path for path, stored in zip(paths, decoded, strict=True) if stored is None]
    if len(bad) >= MOST_IN_PROBE:
        refuse_unreadable(folder.root, bad, f"{PROBED} randomly chosen")


def refuse_unreadable(root: Path, bad: Sequence[Path], of_which: str) -> None:
    """Raises DataError, which names the first ten of the images that cannot be read."""
    first = "\n".join(f"  {path}" for path in bad[:10])
    raise DataError(
        f"{len(bad)} of {of_which} images in {root} cannot be read (fewer than 1 % are passed "
        f"over); the first:\n{first}"
    )


def _in_order(folder: ImageFolder, config: DataConfig) -> list[tuple[str, bool]]:
    """The images in the order of storing, and whether each is stored as a JPEG.

    Val, which each epoch reads, comes first. The train images that fit are a random part.
    """
    order: list[tuple[str, bool]] = []
    for split in (split for split in ORDER if split in folder.splits):
        names = list(folder.splits[split].names)
        if split == "train":
            random.Random(0).shuffle(names)
        is_encoded = config.cache_format == "jpeg" or (
            config.cache_format == "auto"
            and len(names) * config.decoded_pixels**2 * 3 > RAW_BYTES
        )
        order += [(name, is_encoded) for name in names]
    return order


def _remove_outdated(cache: Path, facts: dict[str, Any]) -> None:
    """Removes outdated caches that nobody has opened for a day."""
    for other in caches(cache.parent):
        with contextlib.suppress(OSError, ValueError):
            if other != cache and is_old(other) and _is_outdated(other, facts):
                remove_unless_used(other)


def _is_outdated(other: Path, facts: dict[str, Any]) -> bool:
    """Whether no search will open the cache `other` again.

    That is so if its images have changed since (`facts` describes their present state), if a
    killed process left it half built, or if an older version of this program wrote it.
    """
    if not other.name.endswith(f"-v{CACHE_FORMAT}"):
        return True
    old = json.loads((other / FACTS).read_text(encoding="utf-8"))
    same = all(old[name] == facts[name] for name in ("root", "splits", "decoded_pixels"))
    return bool(same and old["files"] != facts["files"])


def _decode_all(
    paths: Sequence[Path], encoded: Sequence[bool], config: DataConfig
) -> Iterator[Stored | None]:
    """Decodes the images in order, on all cores, at most 16 images a core ahead of the caller."""
    import torch

    num_torch_threads = torch.get_num_threads()
    num_threads = len(os.sched_getaffinity(0))
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    waiting: deque[Future[Stored | None]] = deque()
    side = config.decoded_pixels
    try:
        with ThreadPoolExecutor(num_threads) as pool:
            for path, is_encoded in zip(paths, encoded, strict=True):
                waiting.append(pool.submit(_decode, path, side, is_encoded=is_encoded))
                if len(waiting) == 16 * num_threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    finally:
        torch.set_num_threads(num_torch_threads)


def _decode(path: Path, shorter_side: int, *, is_encoded: bool) -> Stored | None:
    image = decode_image(path, shorter_side)
    if image is None:
        return None
    height, width, _ = image.shape
    if is_encoded and max(height, width) <= LONGEST_JPEG:
        return Stored(to_jpeg(image), (height, width), is_encoded=True)
    return Stored(np.ascontiguousarray(image).reshape(-1), (height, width), is_encoded=False)
