"""Lists the images in tar shards, as WebDataset has them.

An image's class is the text of the `.cls` file with its key, where a shard has such files, and its
folder in the tar elsewhere. A key is a member's path up to the first dot of its name.
Source: https://github.com/webdataset/webdataset, "The WebDataset Format".
"""

import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from sgformer.errors import DataError
from sgformer.sources.folder_scan import NUM_THREADS, packed_files, times_of_packed
from sgformer.sources.found_images import FoundImages, check_class
from sgformer.sources.image_files import (
    OF_HIDDEN,
    OF_SPECIAL,
    OF_UNLABELLED,
    SPLIT_OF,
    SUFFIXES,
    Found,
    ImageFiles,
    Passed,
    is_hidden,
)

TAR: Final = ".tar"
COMPRESSED: Final = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tar.lz4", ".tar.z")
CLASS: Final = "cls"
BESIDE: Final = ("json", "txt")  # what may lie beside an image and tells nothing here
END: Final = bytes(tarfile.BLOCKSIZE)  # what follows the last member


def find_shards(root: Path) -> dict[str, tuple[str, ...]]:
    """A folder's shards by split; see `packed_files`.

    Raises:
        DataError: There are compressed shards, in which no image can be read by itself.
        OSError: A folder cannot be read.
    """
    found = packed_files(root, TAR, *COMPRESSED)
    for name in sum(found.values(), ()):
        if name.lower().endswith(COMPRESSED):
            raise DataError(
                f"a compressed shard cannot be read image by image: {root / name}; "
                "decompress it to .tar (images are compressed already)"
            )
    return found


@dataclass
class _Image:
    member: str
    key: str
    offset: int
    size: int

    @property
    def ending(self) -> str:
        """What follows the key in the member's name, such as `.jpg` or `.seg.png`."""
        return self.member[len(self.key) :]


@dataclass
class _Shard:
    """What a shard holds: its images, the classes that it tells by key, and what else."""

    name: str
    time: int
    images: list[_Image] = field(default_factory=list)
    classes: dict[str, str] = field(default_factory=dict)
    passed: Passed = field(default_factory=Passed)


def scan_shards(root: Path, splits: Sequence[str], found: Found) -> ImageFiles:
    """The images in the shards of those of the splits that exist.

    Raises:
        DataError: A shard is damaged, or names a class as no class can be named.
        OSError: The folder or a shard cannot be read.
    """
    shards = {split: own for split, own in find_shards(root).items() if split in splits}
    images, passed = FoundImages(sum(shards.values(), ())), Passed()
    times = times_of_packed(root)
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        for split, names in shards.items():
            for shard in pool.map(partial(_read_shard, root), names):
                times[shard.name] = shard.time
                _add(images, split, shard)
                passed.merge(shard.passed)
                found(len(images))
    return images.as_files(times, passed)


def _add(images: FoundImages, split: str, shard: _Shard) -> None:
    for image in shard.images:
        shown = f"{shard.name}/{image.member}"
        if shard.classes and image.ending.count(".") > 1:  # such as a mask beside the image
            shard.passed.add(image.ending, shown)
            continue
        folder = "" if shard.classes else _folder_in(image.member, split)
        class_name = shard.classes.get(image.key, folder)
        if class_name:
            images.add_stored(
                split, class_name, image.member,
                container=shard.name, place=image.offset, size=image.size, time=shard.time,
            )  # fmt: skip
        else:
            shard.passed.add(OF_UNLABELLED, shown)


def _folder_in(member: str, split: str) -> str:
    """The outermost folder of a member below that of its split; empty if there is none."""
    folders = member.split("/")[:-1]
    if folders and SPLIT_OF.get(folders[0]) == split:
        folders = folders[1:]
    return folders[0] if folders else ""


def _read_shard(root: Path, name: str) -> _Shard:
    path = root / name
    shard = _Shard(name, path.stat().st_mtime_ns)
    try:
        with tarfile.open(path, "r:") as tar:
            for member in _members(tar):
                _note(shard, path, tar, member)
            is_whole = _has_end(path, tar.offset)
    # What tarfile raises for damaged headers, beside its own errors.
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        raise DataError(f"damaged shard: {path}: {error}") from None
    if not is_whole:
        raise DataError(
            f"damaged or incomplete shard: {path}: after {len(shard.images)} images comes neither "
            "another file nor the end mark of a tar"
        )
    return shard


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members in turn; tarfile would keep a kilobyte of each."""
    while (member := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]
        yield member


def _has_end(path: Path, offset: int) -> bool:
    """Whether a tar ends at this offset. tarfile takes any damaged header for the end."""
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(len(END)) == END


def _note(shard: _Shard, path: Path, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    """Notes a member: an image, an image's class, or what is passed over."""
    parts = [part for part in member.name.split("/") if part not in ("", ".")]
    if member.isdir() or not parts:
        return
    name, base = "/".join(parts), parts[-1]
    stem, _, ending = base.partition(".")
    key = "/".join([*parts[:-1], stem])
    if any(map(is_hidden, parts)):
        shard.passed.add(OF_HIDDEN, f"{shard.name}/{name}")
    elif ending.lower() == CLASS and member.isreg():
        shard.classes[key] = _class_in(tar, member, f"{path}: {name!r}")
    elif base.lower().endswith(SUFFIXES):
        if member.isreg() and not member.issparse():
            shard.images.append(_Image(name, key, member.offset_data, member.size))
        else:
            shard.passed.add(OF_SPECIAL, f"{shard.name}/{name}")
    elif ending.lower() not in BESIDE:
        shard.passed.add(f".{ending}" if ending else "", f"{shard.name}/{name}")


def _class_in(tar: tarfile.TarFile, member: tarfile.TarInfo, where: str) -> str:
    content = tar.extractfile(member)
    assert content is not None, "it is a regular file"
    try:
        text = content.read().decode()
    except UnicodeDecodeError:
        raise DataError(f"a class file must be UTF-8: {where}") from None
    return check_class(text.strip(), where)
