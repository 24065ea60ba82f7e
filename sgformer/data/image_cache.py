"""Images decoded once a node, kept memory-mapped, shared by all trainings.

Only decoding needs torch, for its antialiased resizing; opening what is decoded does not.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import cv2
import filelock
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from sgformer.config import DataConfig
from sgformer.data.image_folder import ImageFolder, LabelledImages, folder_of, read_image_folder
from sgformer.disk import temporary_home
from sgformer.errors import DataError

RgbImage = npt.NDArray[np.uint8]  # (H, W, 3)
Samples = npt.NDArray[np.int64]  # (N, 2): position among the decoded images, label
Progress = Callable[[int, int], None]  # images done, images in all
CACHE_FORMAT: Final = 2
UNREADABLE: Final = -1
NOT_STORED: Final = -2
MAX_UNREADABLE_SHARE: Final = 0.01
# A panorama is cut to its middle: no crop of a training or an evaluation reaches further, and a
# line one pixel high would become gigabytes.
MAX_ASPECT_RATIO: Final = 8
HUGE_PIXELS: Final = 50_000_000
SECONDS_KEPT: Final = 24 * 3600
_one_huge_at_a_time = threading.Lock()
# PIL only reads headers here; OpenCV has its own limit of 2**30 pixels.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
cv2.utils.logging.setLogLevel(
    cv2.utils.logging.LOG_LEVEL_SILENT
)  # what cannot be read is told by us


def decode_image(path: Path, shorter_side: int) -> RgbImage | None:
    """The image upright in RGB, its shorter side resized; None if it cannot be read.

    Resized as timm's evaluation does, by the same filter to the same pixels, but by torch's
    kernel, six times as fast as PIL's (values differ by 2 of 255 at most).
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return None
        content = path.read_bytes()
    except OSError:
        return None
    if not content or _is_cut_jpeg(content):
        return None
    try:
        image = _decode(content, shorter_side)
    except cv2.error:
        return None
    return None if image is None else np.asarray(_resize(image, shorter_side), dtype=np.uint8)


def _is_cut_jpeg(content: bytes) -> bool:
    """Whether a JPEG ends before its end marker: OpenCV would fill the rest with grey.

    Source: ITU-T T.81, B.1: segments with a length up to the first scan, in whose data the end
    marker's bytes cannot be. Thumbnails before it and what cameras append have their own.
    """
    if not content.startswith(b"\xff\xd8"):
        return False
    at = 2
    while content[at : at + 1] == b"\xff" and content[at + 1 : at + 2] != b"\xda":
        at += 1 if content[at + 1 : at + 2] == b"\xff" else 2 + _number(content[at + 2 : at + 4])
    return content.find(b"\xff\xd9", at) < 0


def _number(two_bytes: bytes) -> int:
    return int.from_bytes(two_bytes, "big")


def _decode(content: bytes, shorter_side: int) -> Any:
    data, size = np.frombuffer(content, dtype=np.uint8), _size(content)
    if size is not None and size[0] * size[1] <= HUGE_PIXELS:
        return cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
    # A JPEG is decoded at an eighth of its size where that is enough. Others take their memory,
    # one at a time.
    with _one_huge_at_a_time:
        if size is None or min(size) // 8 < shorter_side:
            return cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
        image = cv2.imdecode(data, cv2.IMREAD_REDUCED_COLOR_8)
        return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _size(content: bytes) -> tuple[int, int] | None:
    """What the header says, without decoding; None if PIL finds it too large or strange."""
    try:
        with Image.open(BytesIO(content)) as image:
            return image.size
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError):
        return (1, 1)  # for OpenCV to judge
    except Image.DecompressionBombError:
        return None


def _resize(image: Any, shorter_side: int) -> Any:
    height, width = image.shape[:2]
    longest = min(height, width) * MAX_ASPECT_RATIO
    if max(height, width) > longest:
        top, left = max(0, height - longest) // 2, max(0, width - longest) // 2
        image = image[top : top + longest, left : left + longest]
        height, width = image.shape[:2]
    if min(height, width) == shorter_side:
        return image
    # As torchvision rounds; another rounding moves the pixels of the whole image.
    longer_side = int(shorter_side * max(height, width) / min(height, width))
    size = (shorter_side, longer_side) if width > height else (longer_side, shorter_side)
    import torch
    import torch.nn.functional as F

    batch_BCHW = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
    resized = F.interpolate(batch_BCHW, size, mode="bicubic", antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


@dataclass(frozen=True)
class ImagesId:
    """Which images a search is over.

    `files` is of this disk's files, their place and times included; `content`, of names and
    sizes, is the same for a copy on another disk.
    """

    files: str
    content: str


class DecodedImages:
    """The decoded images of a folder, by position in `names`, as a cache folder has them."""

    def __init__(self, cache: Path, root: Path, shorter_side: int) -> None:
        self.root, self.shorter_side = root, shorter_side
        with contextlib.suppress(PermissionError):  # a cache of another user's
            os.utime(cache)  # it is in use
        facts = json.loads((cache / "facts.json").read_text(encoding="utf-8"))
        self.id = ImagesId(facts["files"], facts["content"])
        self.names = _read_names(cache)
        with np.load(cache / "index.npz", allow_pickle=False) as index:
            self._offsets, self._shapes = index["offsets"], index["shapes"]
        pixels = cache / "pixels.bin"
        self._pixels = (
            # Copy on write: never changes the file, and torch takes it without a warning.
            np.memmap(pixels, mode="c") if pixels.stat().st_size else np.empty(0, np.uint8)
        )

    def __getitem__(self, i: int) -> RgbImage:
        offset = int(self._offsets[i])
        if offset >= 0:
            height, width = (int(side) for side in self._shapes[i])
            pixels = self._pixels[offset : offset + height * width * 3]
            return np.asarray(pixels.reshape(height, width, 3))
        image = decode_image(self.path(i), self.shorter_side)
        if image is None:
            raise DataError(f"image could be read before and cannot now: {self.path(i)}")
        return image

    def path(self, i: int) -> Path:
        return self.root / self.names[i]

    @property
    def readable(self) -> npt.NDArray[np.bool_]:
        """(N,): which images could be decoded."""
        return np.asarray(self._offsets != UNREADABLE)


@dataclass(frozen=True)
class ImageData:
    """What a training reads: decoded images, and each split's readable ones with their labels."""

    folder: ImageFolder
    images: DecodedImages
    splits: dict[str, Samples]
    unreadable: tuple[Path, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        return self.folder.classes

    def samples(self, split: str) -> Samples:
        """(N, 2): position in images and label of each of a split's readable images.

        Raises:
            DataError: The folder has no such split.
        """
        self.folder.split(split)
        return self.splits[split]


def no_progress(done: int, total: int) -> None:
    """Tells nobody."""


def load_image_data(
    config: DataConfig, progress: Progress = no_progress, expected: ImagesId | None = None
) -> ImageData:
    """The folder of the config, decoded or mapped from the cache.

    With `expected`, images that this node has decoded already are taken without another look at
    the folder, so that a search keeps to the images that it began with.

    Raises:
        DataError: See `read_image_folder` and `decode_folder`; or the images are not the
            expected ones.
    """
    if expected is not None:
        cache = _cache_folder(config, expected.files)
        with contextlib.suppress(OSError):  # not there, or being removed
            images = DecodedImages(cache, config.data_dir or Path(), config.decoded_pixels)
            return _assemble(folder_of(config, images.names), images)
    return decode_folder(read_image_folder(config), config, progress, expected)


def decode_folder(
    folder: ImageFolder,
    config: DataConfig,
    progress: Progress = no_progress,
    expected: ImagesId | None = None,
) -> ImageData:
    """The images of a folder, decoded or mapped from the cache.

    Another process that decodes the same meanwhile is waited for.

    Raises:
        DataError: 1 % or more of the images cannot be read, the cache cannot be written, or the
            images are not the expected ones.
    """
    names = folder.names
    found = _identify(folder.root, names)
    if expected is not None and found.content != expected.content:
        raise DataError(
            f"the images in {folder.root} have changed since the search began (names or sizes "
            "differ); put them back and --resume, or begin another study"
        )
    cache = _cache_folder(config, found.files)
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(cache.with_suffix(".lock")):
            if not cache.is_dir():
                _build_cache(cache, folder, names, found, config, progress)
        images = DecodedImages(cache, folder.root, config.decoded_pixels)
    except OSError as error:
        raise DataError(
            f"cannot write the cache of decoded images: {error} (train.data.cache_dir)"
        ) from None
    return _assemble(folder, images)


def _assemble(folder: ImageFolder, images: DecodedImages) -> ImageData:
    num_images, readable = len(images.names), images.readable
    unreadable = tuple(images.path(int(i)) for i in np.flatnonzero(~readable))
    if unreadable and len(unreadable) >= MAX_UNREADABLE_SHARE * num_images:
        first = "\n".join(f"  {path}" for path in unreadable[:10])
        raise DataError(
            f"{len(unreadable)} of {num_images} images in {folder.root} cannot be read (fewer "
            f"than 1 % are passed over); the first:\n{first}"
        )
    positions = {name: i for i, name in enumerate(images.names)}
    splits = {}
    for split, labelled in folder.splits.items():
        splits[split] = _readable_samples(labelled, positions, readable)
        missing = set(range(len(folder.classes))) - set(splits[split][:, 1].tolist())
        if missing:
            names = ", ".join(folder.classes[label] for label in sorted(missing))
            raise DataError(f"no image of these classes in {split} can be read: {names}")
    return ImageData(folder, images, splits, unreadable)


def _readable_samples(
    labelled: LabelledImages, positions: dict[str, int], readable: npt.NDArray[np.bool_]
) -> Samples:
    where = np.array([positions[name] for name in labelled.names], dtype=np.int64)
    samples = np.stack([where, np.array(labelled.labels, dtype=np.int64)], axis=1)
    return np.asarray(samples[readable[where]])


def _identify(root: Path, names: Sequence[str]) -> ImagesId:
    files, content = hashlib.sha256(os.fsencode(root.resolve())), hashlib.sha256()
    for name in names:
        encoded = os.fsencode(name)
        try:
            status = (root / name).stat()
            size, changed = status.st_size, status.st_mtime_ns
        except OSError:  # a link to nowhere: unreadable, as decoding will find
            size, changed = -1, -1
        files.update(b"\0%s\0%d\0%d" % (encoded, size, changed))
        content.update(b"\0%s\0%d" % (encoded, size))
    return ImagesId(files.hexdigest()[:32], content.hexdigest()[:32])


def _cache_folder(config: DataConfig, files: str) -> Path:
    """Where the decoded images of just these files at this resolution lie."""
    limit = "" if config.cache_bytes is None else f"-{config.cache_bytes}"
    name = f"{files}-{config.decoded_pixels}{limit}-v{CACHE_FORMAT}"
    return _expanded(config.cache_dir) / name


def _expanded(path: Path) -> Path:
    """The path with ~ resolved; a user without a home has one in the temporary folder."""
    try:
        return path.expanduser()
    except RuntimeError:  # as in a container that is run under a number
        return temporary_home().joinpath(*path.parts[1:])


def _read_names(cache: Path) -> tuple[str, ...]:
    content = (cache / "names").read_bytes()
    return tuple(os.fsdecode(name) for name in content.split(b"\0"))


def _build_cache(
    cache: Path,
    folder: ImageFolder,
    names: Sequence[str],
    found: ImagesId,
    config: DataConfig,
    progress: Progress,
) -> None:
    """Writes the files beside `cache`, then renames: there is no half cache."""
    temporary = cache.with_suffix(".building")
    shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed
    temporary.mkdir()
    limit = config.cache_bytes
    if limit is None:
        limit = shutil.disk_usage(temporary).free // 2
    facts = {
        "files": found.files,
        "content": found.content,
        "root": str(folder.root.resolve()),
        "splits": list(folder.splits),
        "decoded_pixels": config.decoded_pixels,
    }
    try:
        paths = [folder.root / name for name in names]
        offsets, shapes = _write_pixels(temporary / "pixels.bin", paths, config, limit, progress)
        np.savez(temporary / "index.npz", offsets=offsets, shapes=shapes)
        (temporary / "names").write_bytes(b"\0".join(os.fsencode(name) for name in names))
        (temporary / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
        temporary.rename(cache)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _remove_outdated(cache, facts)


def _write_pixels(
    file: Path, paths: Sequence[Path], config: DataConfig, limit: int, progress: Progress
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Each image's place in the file, or why it has none; and each one's height and width."""
    offsets = np.full(len(paths), UNREADABLE, dtype=np.int64)
    shapes = np.zeros((len(paths), 2), dtype=np.int32)
    with file.open("wb") as output:
        for i, image in enumerate(_decode_all(paths, config.decoded_pixels)):
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
    """Removes what nobody will open again and nobody opened for a day.

    That is what the same folder's images were decoded to before they changed, what a killed
    process left half built, and what an older version of this program made. A training that
    still reads it keeps it: a mapped file lives until it is closed.
    """
    for other in cache.parent.iterdir():
        with contextlib.suppress(OSError, ValueError):
            is_old = time.time() - other.stat().st_mtime > SECONDS_KEPT
            if is_old and other.is_dir() and _is_outdated(other, facts):
                shutil.rmtree(other, ignore_errors=True)


def _is_outdated(other: Path, facts: dict[str, Any]) -> bool:
    if other.name.endswith(f"-v{CACHE_FORMAT}"):
        old = json.loads((other / "facts.json").read_text(encoding="utf-8"))
        same = all(old[name] == facts[name] for name in ("root", "splits", "decoded_pixels"))
        return bool(same and old["files"] != facts["files"])
    return re.fullmatch(r"[0-9a-f]{32}(-[\d-]+-v\d+)?(\.building)?", other.name) is not None


def _decode_all(paths: Sequence[Path], shorter_side: int) -> Iterator[RgbImage | None]:
    """Decodes on all cores, in order, a bounded number of images ahead."""
    import torch

    num_torch_threads = torch.get_num_threads()
    num_threads = len(os.sched_getaffinity(0))
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    waiting: deque[Future[RgbImage | None]] = deque()
    try:
        with ThreadPoolExecutor(num_threads) as pool:
            for path in paths:
                waiting.append(pool.submit(decode_image, path, shorter_side))
                if len(waiting) == 16 * num_threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    finally:
        torch.set_num_threads(num_torch_threads)
