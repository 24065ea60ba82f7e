"""Writes the files of a cache: the pixels, as far as there is room, and where each image lies."""

import contextlib
import errno
import os
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from sgformer.data.cache_place import Room
from sgformer.data.image_cache import NOT_STORED, UNREADABLE, Bytes
from sgformer.disk import is_full

SYNC_BYTES: Final = 2**28  # written between two waits for the disk, which may be over its quota


class StoredImage(NamedTuple):
    """A decoded image as the cache keeps it: raw pixels or a JPEG."""

    data: Bytes
    shape: tuple[int, int]
    is_encoded: bool


class Index:
    """Where each image lies in the file of pixels, and how it is stored."""

    def __init__(self, num_images: int) -> None:
        self.offsets = np.full(num_images, UNREADABLE, dtype=np.int64)
        self.lengths = np.zeros(num_images, dtype=np.int32)
        self.shapes = np.zeros((num_images, 2), dtype=np.int32)
        self.encoded = np.zeros(num_images, dtype=np.bool_)
        self.where = np.zeros((0, 3), dtype=np.int64)  # in tar or parquet files; see Places

    @property
    def num_bytes(self) -> int:
        return sum(array.nbytes for array in vars(self).values())

    def note(self, i: int, offset: int, image: StoredImage) -> None:
        self.offsets[i], self.lengths[i] = offset, len(image.data)
        self.shapes[i], self.encoded[i] = image.shape, image.is_encoded

    def forget_beyond(self, size: int) -> None:
        """Notes that images beyond the end of the file of pixels are not stored."""
        self.offsets[self.offsets + self.lengths > size] = NOT_STORED

    def write(self, path: Path) -> None:
        np.savez(path, **vars(self))


class PixelFile:
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
            self.full, self.room = str(self._room), max(0, self._room.given)
            return NOT_STORED
        with self._noticing_full():
            left = data.data
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
            self.full = "the user's quota is reached" if is_quota else "its disk is full"
            self.room = None if is_quota else self.size
