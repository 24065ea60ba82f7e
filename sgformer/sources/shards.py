"""Lists the images in tar shards as WebDataset has them: {train,val,test}-*.tar in one folder.

Each image's class is the text of the `.cls` file with its key, or else its folder in the tar. A
key is a member's path up to the first dot of its name.
Source: https://github.com/webdataset/webdataset, "The WebDataset Format".
"""

import re
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sgformer.errors import DataError
from sgformer.sources.folder_scan import NUM_THREADS
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
from sgformer.sources.rows import Rows, check_class

_SPLITS: Final = "|".join(SPLIT_OF)
_SHARD: Final = re.compile(rf"(?:.+[-_.])?({_SPLITS})(?:[-_.].*)?\.tar")
_COMPRESSED: Final = re.compile(rf"(?:.+[-_.])?({_SPLITS})(?:[-_.].*)?\.(?:tar\..+|tgz|tbz2?|txz)")
CLASS: Final = "cls"
BESIDE: Final = ("json", "txt")  # what may lie beside an image and tells nothing here


def find_shards(root: Path) -> dict[str, tuple[str, ...]]:
    """The names of a folder's shards by split, sorted.

    Raises:
        DataError: There are compressed shards, in which no image can be read by itself.
        OSError: The folder cannot be read.
    """
    shards: dict[str, list[str]] = {}
    names = sorted(path.name for path in root.iterdir() if path.suffix and path.is_file())
    for name in names:
        if _COMPRESSED.fullmatch(name):
            raise DataError(
                f"a compressed shard cannot be read image by image: {root / name}; decompress it "
                "to .tar (images are compressed already)"
            )
        if found := _SHARD.fullmatch(name):
            shards.setdefault(SPLIT_OF[found[1]], []).append(name)
    return {split: tuple(own) for split, own in shards.items()}


@dataclass
class _Image:
    member: str
    key: str
    offset: int
    size: int


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
    rows, passed = Rows(sum(shards.values(), ())), Passed()
    times = {"": root.stat().st_mtime_ns}
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        for split, names in shards.items():
            for shard in pool.map(lambda name: _read_shard(root / name), names):
                times[shard.name] = shard.time
                _add(rows, split, shard, passed)
                passed.merge(shard.passed)
                found(len(rows))
    return rows.as_files(tuple(shards), times, passed)


def _add(rows: Rows, split: str, shard: _Shard, passed: Passed) -> None:
    for image in shard.images:
        class_name = shard.classes.get(image.key) or _folder_in(image.member, split)
        if class_name:
            rows.add_stored(
                split, class_name, image.member,
                container=shard.name, place=image.offset, size=image.size, time=shard.time,
            )  # fmt: skip
        else:
            passed.add(OF_UNLABELLED, f"{shard.name}/{image.member}")


def _folder_in(member: str, split: str) -> str:
    """The outermost folder of a member below that of its split; empty if there is none."""
    folders = member.split("/")[:-1]
    if folders and SPLIT_OF.get(folders[0]) == split:
        folders = folders[1:]
    return folders[0] if folders else ""


def _read_shard(path: Path) -> _Shard:
    shard = _Shard(path.name, path.stat().st_mtime_ns)
    try:
        with tarfile.open(path, "r:") as tar:
            for member in _members(tar):
                _note(shard, path, tar, member)
    except tarfile.TarError as error:
        raise DataError(f"damaged shard: {path}: {error}") from None
    return shard


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members in turn; tarfile would keep a kilobyte of each."""
    while (member := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]
        yield member


def _note(shard: _Shard, path: Path, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    """Notes a member: an image, an image's class, or what is passed over."""
    name = member.name.removeprefix("./")
    folder, _, base = name.rpartition("/")
    stem, _, ending = base.partition(".")
    key = f"{folder}/{stem}"
    if any(map(is_hidden, name.split("/"))):
        shard.passed.add(OF_HIDDEN, f"{shard.name}/{name}", count=not member.isdir())
    elif ending == CLASS and member.isreg():
        content = tar.extractfile(member)
        assert content is not None, "it is a regular file"
        text = content.read().decode(errors="replace").strip()
        shard.classes[key] = check_class(text, f"{path}: {name!r}")
    elif base.lower().endswith(SUFFIXES):
        if member.isreg() and not member.issparse():
            shard.images.append(_Image(name, key, member.offset_data, member.size))
        else:
            shard.passed.add(OF_SPECIAL, f"{shard.name}/{name}")
    elif not member.isdir() and ending not in BESIDE:
        shard.passed.add(f".{ending}" if ending else "", f"{shard.name}/{name}")
