"""Memory-mapped cache of decoded images: each node decodes an image once, for all trainings.

Opening a cache does not need torch; building a cache does, to resize images.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import filelock
import numpy as np
import numpy.typing as npt

from sgformer.config import DataConfig
from sgformer.cpus import usable_cpus
from sgformer.data.image_folder import ImageFolder
from sgformer.disk import expanded
from sgformer.errors import DataError
from sgformer.images.decoding import RgbImage, decode_image
from sgformer.images.folder_scan import size_and_time
from sgformer.images.set_decoder import SetDecoder, rules_name, rules_of
from sgformer.images.trained_images import digests

Progress = Callable[[int, int], None]  # images decoded, images in all
CACHE_FORMAT: Final = 3
# In place of an offset: the image could not be decoded; the cache file had no room for it.
UNREADABLE: Final = -1
NOT_STORED: Final = -2
SECONDS_KEPT: Final = 24 * 3600


@dataclass(frozen=True)
class ImagesId:
    """Identifies the images that a search uses.

    Attributes:
        files: Hash of the files on this disk: folder, names, sizes and modification times.
        content: Hash of names and sizes only, equal for a copy on another disk.
    """

    files: str
    content: str


class DecodedImages:
    """The decoded images of a folder; an image's index is its position in `names`.

    Attributes:
        root: The image folder.
        shorter_side: Pixels of each image's shorter side.
        id: Hashes that identify the images.
        names: The images' paths below the root, sorted.
        rules: How deep and transparent images were decoded.
        digests: A hash of names and sizes for each split's folder.
        notes: What is odd in the images, a sentence each.
    """

    def __init__(self, cache: Path, root: Path, shorter_side: int) -> None:
        self.root, self.shorter_side = root, shorter_side
        with contextlib.suppress(PermissionError):  # the cache belongs to another user
            os.utime(cache)  # marks the cache as in use, for `_remove_outdated`
        facts = json.loads((cache / "facts.json").read_text(encoding="utf-8"))
        self.id = ImagesId(facts["files"], facts["content"])
        self.names = _read_names(cache)
        self.rules, self.notes = rules_of(facts), tuple(facts["notes"])
        self.digests: dict[str, str] = facts["digests"]
        with np.load(cache / "index.npz", allow_pickle=False) as index:
            self._offsets, self._shapes = index["offsets"], index["shapes"]
        pixels = cache / "pixels.bin"
        self._pixels = (
            # Copy on write: no write reaches the file, and torch does not warn as for read-only.
            np.memmap(pixels, mode="c") if pixels.stat().st_size else np.empty(0, np.uint8)
        )

    def __getitem__(self, i: int) -> RgbImage:
        """Image i, (H, W, 3) uint8; decoded from its file if the cache had no room for it."""
        offset = int(self._offsets[i])
        if offset >= 0:
            height, width = (int(side) for side in self._shapes[i])
            pixels = self._pixels[offset : offset + height * width * 3]
            return np.asarray(pixels.reshape(height, width, 3))
        image = decode_image(self.path(i), self.shorter_side, self.rules)
        if image is None:
            raise DataError(f"image could be read before and cannot now: {self.path(i)}")
        return image

    def path(self, i: int) -> Path:
        return self.root / self.names[i]

    @property
    def readable(self) -> npt.NDArray[np.bool_]:
        """(N,) booleans: true for images that could be decoded."""
        return np.asarray(self._offsets != UNREADABLE)


def no_progress(done: int, total: int) -> None:
    """A `Progress` that shows nothing."""


def identify(folder: ImageFolder) -> ImagesId:
    """The hashes that identify a folder's images."""
    files, content = hashlib.sha256(os.fsencode(folder.root.resolve())), hashlib.sha256()
    for name, size, changed in _sizes_and_times(folder):
        encoded = os.fsencode(name)
        files.update(b"\0%s\0%d\0%d" % (encoded, size, changed))
        content.update(b"\0%s\0%d" % (encoded, size))
    return ImagesId(files.hexdigest()[:32], content.hexdigest()[:32])


def _sizes_and_times(folder: ImageFolder) -> Iterator[tuple[str, int, int]]:
    """Each image's name, size and time, sorted by name; from the scan, if there was one."""
    if folder.files is None:
        yield from ((name, *size_and_time(folder.root / name)) for name in folder.names)
    else:
        wanted = set(folder.names)
        yield from (file for file in folder.files if file[0] in wanted)


def open_cache(config: DataConfig, images: ImagesId) -> DecodedImages:
    """Opens the cache of these images without reading the image folder.

    Raises:
        OSError: This node has no cache of these images.
    """
    cache = _cache_folder(config, images)
    return DecodedImages(cache, config.data_dir or Path(), config.decoded_pixels)


def open_or_build_cache(
    folder: ImageFolder, images: ImagesId, config: DataConfig, progress: Progress
) -> DecodedImages:
    """Opens the cache of these images, and builds it first if there is none.

    If another process is building the same cache, this process waits until it is built.

    Raises:
        DataError: The cache cannot be written.
    """
    cache = _cache_folder(config, images)
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(cache.with_suffix(".lock")):
            if not cache.is_dir():
                _build_cache(cache, folder, images, config, progress)
        return DecodedImages(cache, folder.root, config.decoded_pixels)
    except OSError as error:
        raise DataError(
            f"cannot write the cache of decoded images: {error} (train.data.cache_dir)"
        ) from None


def _cache_folder(config: DataConfig, images: ImagesId) -> Path:
    """The folder of the cache of these files at the config's resolution and size limit."""
    limit = "" if config.cache_bytes is None else f"-{config.cache_bytes}"
    limit += rules_name(config)
    name = f"{images.files}-{config.decoded_pixels}{limit}-v{CACHE_FORMAT}"
    return expanded(config.cache_dir) / name


def _read_names(cache: Path) -> tuple[str, ...]:
    content = (cache / "names").read_bytes()
    return tuple(os.fsdecode(name) for name in content.split(b"\0"))


def _build_cache(
    cache: Path, folder: ImageFolder, images: ImagesId, config: DataConfig, progress: Progress
) -> None:
    """Builds the cache in another folder and renames that to `cache`, which is never partial."""
    names = folder.names
    temporary = cache.with_suffix(".building")
    shutil.rmtree(temporary, ignore_errors=True)  # left by a process that was killed
    temporary.mkdir()
    limit = config.cache_bytes
    if limit is None:
        limit = shutil.disk_usage(temporary).free // 2
    decode = SetDecoder(
        folder.root, {split: part.names for split, part in folder.splits.items()}, config
    )
    facts = {
        "files": images.files,
        "content": images.content,
        "root": str(folder.root.resolve()),
        "splits": list(folder.splits),
        "decoded_pixels": config.decoded_pixels,
        "digests": {} if folder.files is None else digests(folder.files),
    }
    try:
        paths = [folder.root / name for name in names]
        offsets, shapes = _write_pixels(temporary / "pixels.bin", paths, decode, limit, progress)
        np.savez(temporary / "index.npz", offsets=offsets, shapes=shapes)
        (temporary / "names").write_bytes(b"\0".join(os.fsencode(name) for name in names))
        facts |= decode.facts()
        (temporary / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
        temporary.rename(cache)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _remove_outdated(cache, facts)


def _write_pixels(
    file: Path, paths: Sequence[Path], decode: SetDecoder, limit: int, progress: Progress
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Decodes the images and writes their pixels to the file, up to `limit` bytes.

    Returns:
        (N,) byte offsets in the file, or UNREADABLE or NOT_STORED; (N, 2) heights and widths.
    """
    offsets = np.full(len(paths), UNREADABLE, dtype=np.int64)
    shapes = np.zeros((len(paths), 2), dtype=np.int32)
    with file.open("wb") as output:
        for i, image in enumerate(_decode_all(paths, decode)):
            if image is not None:
                shapes[i] = image.shape[:2]
                stored = output.tell() + image.nbytes <= limit
                offsets[i] = output.tell() if stored else NOT_STORED
                if stored:
                    output.write(image.tobytes())
            progress(i + 1, len(paths))
        output.flush()
        os.fsync(output.fileno())
    return offsets, shapes


def _remove_outdated(cache: Path, facts: dict[str, Any]) -> None:
    """Removes outdated caches that nobody has opened for a day.

    A training that still reads such a cache is safe: a mapped file exists until it is unmapped.
    """
    for other in cache.parent.iterdir():
        with contextlib.suppress(OSError, ValueError):
            is_old = time.time() - other.stat().st_mtime > SECONDS_KEPT
            if is_old and other.is_dir() and _is_outdated(other, facts):
                shutil.rmtree(other, ignore_errors=True)


def _is_outdated(other: Path, facts: dict[str, Any]) -> bool:
    """Whether no search will open the cache `other` again.

    That is so if its images have changed since (`facts` describes their present state), if a
    killed process left it half built, or if an older version of this program wrote it.
    """
    if other.name.endswith(f"-v{CACHE_FORMAT}"):
        old = json.loads((other / "facts.json").read_text(encoding="utf-8"))
        same = all(old[name] == facts[name] for name in ("root", "splits", "decoded_pixels"))
        return bool(same and old["files"] != facts["files"])
    return re.fullmatch(r"[0-9a-f]{32}(-[\d-]+-v\d+)?(\.building)?", other.name) is not None


def _decode_all(paths: Sequence[Path], decode: SetDecoder) -> Iterator[RgbImage | None]:
    """Decodes the images in order, on all cores, at most 16 images a core ahead of the caller."""
    import torch

    num_torch_threads = torch.get_num_threads()
    num_threads = usable_cpus()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    waiting: deque[Future[RgbImage | None]] = deque()
    try:
        with ThreadPoolExecutor(num_threads) as pool:
            for path in paths:
                waiting.append(pool.submit(decode, path))
                if len(waiting) == 16 * num_threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    finally:
        torch.set_num_threads(num_torch_threads)
