"""Keeps the list of a large set's images, and uses it again while its folders' times stand.

A folder's time changes when a file in it comes or goes. A file that is written over in place is
noticed if it is among the thousand that are looked at, or if its folder is touched. Of images in
tar and parquet files the times of all these files are looked at.
"""

import contextlib
import hashlib
import json
import os
import time
import zipfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from sgformer.sources.folder_scan import NUM_THREADS, size_and_time
from sgformer.sources.image_files import Found, ImageFiles, Places, not_told
from sgformer.sources.listing import scan_images
from sgformer.sources.source import source_of

KEPT_FROM: Final = 10_000  # a shorter list is made anew in no time
LOOKED_AT: Final = 1000  # files of a kept list
# A folder that has changed within this time may change again without getting another time.
SECONDS_SETTLED: Final = 2.0
SECONDS_KEPT: Final = 30 * 24 * 3600  # of a list that nobody uses
FORMAT: Final = 2


def list_files(
    root: Path, splits: Sequence[str], place: Path, found: Found = not_told
) -> ImageFiles:
    """The images of those of the splits that exist; from a list kept in `place` if it holds.

    Args:
        root: The folder, manifest or parquet file.
        splits: Names of splits.
        place: The folder of kept lists; a list that cannot be written is not kept.
        found: Is told how many files have been found so far.

    Raises:
        OSError: A folder or file cannot be read.
        DataError: See `scan_images`.
    """
    file = place / f"{_digest(root, splits)}.npz"
    kept = _read(file)
    if kept is not None and _stands(root, kept):
        with contextlib.suppress(OSError):
            os.utime(file)
        return kept
    now = time.time_ns()
    files = scan_images(root, splits, found)
    is_settled = max(files.folder_times.values()) < now - SECONDS_SETTLED * 1e9
    if len(files) >= KEPT_FROM and is_settled:
        with contextlib.suppress(OSError):
            _write(file, files)
    return files


def _digest(root: Path, splits: Sequence[str]) -> str:
    what = b"\0".join([os.fsencode(root.resolve()), *(split.encode() for split in splits)])
    return hashlib.sha256(what).hexdigest()[:32]


def _stands(root: Path, kept: ImageFiles) -> bool:
    """Whether all folders have the times that they had, and some files their sizes and times."""
    chosen = np.unique(np.linspace(0, len(kept) - 1, LOOKED_AT).astype(int))
    if kept.places is not None:
        chosen = chosen[:0]
    expected = zip(kept.sizes[chosen].tolist(), kept.times[chosen].tolist(), strict=True)
    source = source_of(root, kept.names)
    try:
        with ThreadPoolExecutor(NUM_THREADS) as pool:
            folders = pool.map(lambda name: (root / name).stat().st_mtime_ns, kept.folder_times)
            files = pool.map(lambda i: size_and_time(source.where(kept.names[i])), chosen)
            return list(folders) == list(kept.folder_times.values()) and list(files) == list(
                expected
            )
    except OSError:
        return False


def _write(file: Path, files: ImageFiles) -> None:
    file.parent.mkdir(exist_ok=True)  # in the folder of caches, which others make
    facts = {
        "format": FORMAT,
        "class_folders": files.class_folders,
        "notes": files.notes,
    }
    places = files.places or Places((), np.empty((0, 3), np.int64))
    temporary = file.with_name(f"{file.stem}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as output:
            np.savez(
                output,
                facts=_as_bytes([json.dumps(facts)]),
                names=_as_bytes(files.names),
                sizes=files.sizes,
                times=files.times,
                folders=_as_bytes(files.folder_times),
                folder_times=np.array(list(files.folder_times.values()), dtype=np.int64),
                containers=_as_bytes(places.containers),
                where=places.where,
            )
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
    for other in file.parent.glob("*.npz"):
        if time.time() - other.stat().st_mtime > SECONDS_KEPT:
            other.unlink(missing_ok=True)


def _read(file: Path) -> ImageFiles | None:
    """The list in a file; None if there is none, or it is damaged or of another version."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            facts = json.loads(_as_names(stored["facts"])[0])
            if facts["format"] != FORMAT:
                return None
            folder_times = stored["folder_times"].tolist()
            places = Places(_as_names(stored["containers"]), stored["where"])
            return ImageFiles(
                _as_names(stored["names"]),
                stored["sizes"],
                stored["times"],
                {split: tuple(names) for split, names in facts["class_folders"].items()},
                dict(zip(_as_names(stored["folders"]), folder_times, strict=True)),
                tuple(facts["notes"]),
                places if len(places.where) else None,
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _as_bytes(names: Iterable[str]) -> npt.NDArray[np.uint8]:
    return np.frombuffer(b"\0".join(map(os.fsencode, names)), dtype=np.uint8)


def _as_names(content: npt.NDArray[np.uint8]) -> tuple[str, ...]:
    return tuple(os.fsdecode(content.tobytes()).split("\0"))
