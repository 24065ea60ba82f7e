"""Builds a cache of decoded images. Resizing images needs torch, which is imported for it."""

import contextlib
import fcntl
import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from sgformer.cpus import in_threads
from sgformer.data.cache_place import (
    CACHE_FORMAT,
    FACTS,
    Room,
    caches,
    is_old,
    make_place,
    remove_unless_used,
)
from sgformer.data.cache_writing import Index, PixelFile, StoredImage
from sgformer.data.image_cache import (
    INDEX,
    NAMES,
    PIXELS,
    DecodedImages,
    ImagesId,
    Progress,
    cache_folder,
    to_jpeg,
)
from sgformer.data.image_folder import ImageFolder
from sgformer.data_config import DataConfig
from sgformer.errors import DataError
from sgformer.images.set_decoder import SetDecoder
from sgformer.images.trained_images import digests
from sgformer.locks import lock_of
from sgformer.sources.source import ImageSource

# A split of more bytes, counted as square images, is stored as JPEGs (data.cache_format: auto).
RAW_BYTES: Final = 8 * 2**30
LONGEST_JPEG: Final = 65_500  # pixels a side, of libjpeg
ORDER: Final = ("val", "train", "test")  # of storing: what is read most comes first
SPARE: Final = 2**14  # bytes kept for the headers of small files
MORE: Final = 1.25  # a cache that lacks images is built anew if it can grow by this factor
MAX_UNREADABLE_SHARE: Final = 0.01
PROBED: Final = 1000  # images that are tried before the others
# Of PROBED images. If 1 % of all are unreadable, one probe in 20,000 has as many by chance.
MOST_IN_PROBE: Final = 25


def open_or_build_cache(
    folder: ImageFolder, images: ImagesId, config: DataConfig, progress: Progress
) -> DecodedImages:
    """Opens the cache of these images, and builds it first if there is none.

    If another process is building the same cache, this process waits until it is built. A cache
    that lacks images for want of room is built anew when there is more.

    Raises:
        DataError: The cache cannot be written, or too many images cannot be read.
    """
    try:
        cache = cache_folder(config, images, is_whole={"train", "val"} <= folder.splits.keys())
        opened = _opened(cache, folder, config)
        if opened is not None:
            return opened
        make_place(cache.parent, config.cache_dir)
        with lock_of(cache.with_suffix(".lock")):
            opened = _opened(cache, folder, config)
            if opened is not None:
                return opened
            if cache.is_dir() and not remove_unless_used(cache, is_built=True):
                return DecodedImages(cache, folder.root, config.decoded_pixels, folder.places)
            return _built(cache, folder, images, config, progress)
    except OSError as error:
        raise DataError(
            f"cannot write the cache of decoded images: {error} (train.data.cache_dir)"
        ) from None


def _opened(cache: Path, folder: ImageFolder, config: DataConfig) -> DecodedImages | None:
    """The cache; None if there is none, or if it lacks images and can grow."""
    try:
        images = DecodedImages(cache, folder.root, config.decoded_pixels, folder.places)
        if images.room is None or not os.access(cache.parent, os.W_OK):
            return images
        most = Room(cache.parent, cache, config.cache_bytes).most
        return None if most > MORE * images.room + SPARE else images
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
        "digests": {} if folder.files is None else digests(folder.files),
    }
    if folder.class_order:  # a search goes on by the cache if the manifest's order has gone
        facts["class_order"] = list(folder.class_order)
    if folder.places is not None and folder.files is not None:
        times = folder.files.folder_times
        facts["containers"] = {name: times[name] for name in folder.places.containers}
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
            return DecodedImages(cache, folder.root, config.decoded_pixels, folder.places)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _fill(
    cache: Path, folder: ImageFolder, config: DataConfig, room: Room, progress: Progress
) -> dict[str, Any]:
    """Decodes the images and writes the cache's files.

    Returns:
        Why it lacks images, if it does, and how they were decoded.
    """
    names, splits = folder.names, {split: part.names for split, part in folder.splits.items()}
    source = folder.source
    decode = SetDecoder(source, splits, config)
    _probe(folder, names, config)
    joined = b"\0".join(os.fsencode(name) for name in names)
    index = Index(len(names))
    if folder.places is not None:
        index.where = folder.places.where
    file = PixelFile(cache / PIXELS, room, len(joined) + index.num_bytes + SPARE)
    position = {name: i for i, name in enumerate(names)}
    order = _in_order(folder, source, config)
    bad: list[str] = []
    with contextlib.closing(file):
        decoded = _decode_all(order, decode)
        for done, ((name, is_encoded), stored) in enumerate(zip(order, decoded, strict=True), 1):
            i = position[name]
            if stored is None:
                bad.append(source.where(name))
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
    for name in (INDEX, NAMES):
        with (cache / name).open("rb") as written:
            os.fsync(written)
    return {"full": file.full, "room": file.room, **decode.facts()}


def _probe(folder: ImageFolder, names: Sequence[str], config: DataConfig) -> None:
    """Tries some images of a large folder, so that hours are not spent on a broken one.

    Raises:
        DataError: Far more of them cannot be read than are passed over.
    """
    if len(names) < 10 * PROBED:
        return
    source, number = folder.source, len(names) // PROBED * PROBED
    chosen = source.spread(random.Random(0).sample(names, number), PROBED)
    order = [(name, False) for name in chosen]
    decoded = _decode_all(order, SetDecoder(source, {}, config))
    bad = [name for (name, _), stored in zip(order, decoded, strict=True) if stored is None]
    if len(bad) >= MOST_IN_PROBE:
        where = list(map(source.where, bad))
        refuse_unreadable(folder.root, where, f"{len(order)} randomly chosen")


def refuse_unreadable(root: Path, bad: Sequence[str], of_which: str) -> None:
    """Raises DataError, which names the first ten of the images that cannot be read."""
    first = "\n".join(f"  {path}" for path in bad[:10])
    raise DataError(
        f"{len(bad)} of {of_which} images in {root} cannot be read (fewer than 1 % are passed "
        f"over); the first:\n{first}"
    )


def _in_order(
    folder: ImageFolder, source: ImageSource, config: DataConfig
) -> list[tuple[str, bool]]:
    """The images in the order of storing, and whether each is stored as a JPEG.

    Val, which each epoch reads, comes first. The train images that fit are a random part.
    """
    order: list[tuple[str, bool]] = []
    # By folder, not by split: how train is divided changes no pixels.
    num_images = Counter(name.split("/", 1)[0] for name in folder.names)
    for split in (split for split in ORDER if split in folder.splits):
        names = list(folder.splits[split].names)
        if split == "train":
            random.Random(0).shuffle(names)
        is_encoded = stores_jpegs(config, num_images[names[0].split("/", 1)[0]])
        order += [(name, is_encoded) for name in source.in_reading_order(names)]
    return order


def stores_jpegs(config: DataConfig, num_images: int) -> bool:
    """Whether the images of a split's folder are stored as JPEGs, not as raw pixels."""
    num_bytes = num_images * config.decoded_pixels**2 * 3
    return config.cache_format == "jpeg" or (
        config.cache_format == "auto" and num_bytes > RAW_BYTES
    )


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
    order: Sequence[tuple[str, bool]], decode: SetDecoder
) -> Iterator[StoredImage | None]:
    """Decodes the images in order, on all cores, a few images a core ahead of the caller.

    Args:
        order: Each image's name, and whether it is stored as a JPEG.
        decode: Decodes the image of a name.
    """
    import torch

    num_torch_threads = torch.get_num_threads()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    try:
        yield from in_threads(partial(_stored, decode), order)
    finally:
        torch.set_num_threads(num_torch_threads)


def _stored(decode: SetDecoder, one: tuple[str, bool]) -> StoredImage | None:
    name, is_encoded = one
    image = decode(name)
    if image is None:
        return None
    height, width, _ = image.shape
    if is_encoded and max(height, width) <= LONGEST_JPEG:
        return StoredImage(to_jpeg(image), (height, width), is_encoded=True)
    return StoredImage(np.ascontiguousarray(image).reshape(-1), (height, width), is_encoded=False)
