"""Where the caches of decoded images lie, which of them are in use, and which make room."""

import contextlib
import fcntl
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Final

from sgformer.disk import IN_MEMORY, expanded, file_system, is_on_a_network

CACHE_FORMAT: Final = 3
CACHE_VARIABLE: Final = "SGFORMER_CACHE"
# Variables in which batch systems name a job's folder on a local disk, and where many sites mount
# such a disk. Sources: Slurm of the Alliance (Canada), CSC, NCI.
SCRATCH_VARIABLES: Final = ("SLURM_TMPDIR", "LOCAL_SCRATCH", "PBS_JOBFS")
SCRATCH_FOLDERS: Final = ("/localscratch", "/local_scratch", "/scratch")
HOME_FOLDER: Final = Path("~/.cache/sgformer-hpo")
FACTS: Final = "facts.json"  # the file that a reader locks
SECONDS_KEPT: Final = 24 * 3600
CACHE_NAME: Final = re.compile(r"[0-9a-f]{32}(-[a-z\d-]+-v\d+)?(\.building)?(\.removed-\d+)?")


def cache_place(chosen: Path | None) -> Path:
    """The folder of this node's caches: the chosen one, or the first that can be written to.

    The order: data.cache_dir; the variable SGFORMER_CACHE; a batch system's local scratch; the
    temporary folder; the home folder. A place on a network's disk, or in memory, is only taken if
    there is no other.
    """
    named = os.environ.get(CACHE_VARIABLE)
    if chosen is not None or named:
        return expanded(chosen or Path(str(named)))
    own = f"sgformer-cache-{os.getuid()}"
    scratch = [os.environ[name] for name in SCRATCH_VARIABLES if os.environ.get(name)]
    parents = (*scratch, *SCRATCH_FOLDERS, tempfile.gettempdir(), "/var/tmp")
    existing = [Path(parent) for parent in parents if os.path.isdir(parent)]  # noqa: PTH112
    places = [*(parent / own for parent in existing), expanded(HOME_FOLDER)]
    usable = [place for place in places if _is_usable(place)]
    return next(filter(_is_on_a_local_disk, usable), (usable or places)[0])


def make_place(place: Path, chosen: Path | None) -> None:
    """Makes the folder of the caches; a default one is for its owner's eyes only."""
    is_default = chosen is None and not os.environ.get(CACHE_VARIABLE)
    place.mkdir(mode=0o700 if is_default else 0o777, parents=True, exist_ok=True)


def _is_usable(place: Path) -> bool:
    """Whether this user owns the folder, or can make it."""
    try:
        status = place.lstat()
    except OSError:
        above = _nearest(place)
        return above.is_dir() and os.access(above, os.W_OK | os.X_OK)
    # Anybody may make a folder of this name, or a link, in a temporary folder.
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()


def _is_on_a_local_disk(place: Path) -> bool:
    above = _nearest(place)
    return not is_on_a_network(above) and file_system(above) not in IN_MEMORY


def _nearest(place: Path) -> Path:
    """The path itself, or the nearest folder above it that exists."""
    return next(path for path in (place, *place.parents) if os.path.exists(path))  # noqa: PTH110


def hold(cache: Path) -> FileIO:
    """Marks a cache as used just now, and as in use for as long as the returned file is open.

    Raises:
        FileNotFoundError: There is no such cache, or it was removed at this moment.
    """
    file = FileIO(cache / FACTS)
    with contextlib.suppress(OSError):  # a file system without locks
        fcntl.flock(file, fcntl.LOCK_SH)
    if not os.path.samestat(os.fstat(file.fileno()), (cache / FACTS).stat()):
        raise FileNotFoundError(cache)
    with contextlib.suppress(OSError):  # another user's cache, or a read-only disk
        os.utime(cache)
    return file


def remove_unless_used(cache: Path, *, is_built: bool = False) -> bool:
    """Removes a cache that no process holds; returns whether it is gone.

    Args:
        cache: The folder of the cache.
        is_built: Whether nobody is building it, even if its facts are missing.
    """
    with contextlib.ExitStack() as opened, contextlib.suppress(OSError):
        if (cache / FACTS).exists():
            file = opened.enter_context((cache / FACTS).open("r+b"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # OSError: somebody reads the cache
        elif not (is_built or is_old(cache)):  # an older version may be building it
            return False
        gone = cache.with_name(f"{cache.name}.removed-{os.getpid()}")
        cache.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
        return True
    return False


def caches(place: Path) -> Iterator[Path]:
    """The caches in a folder, of all versions and half built ones, least recently used first."""
    found = []
    with contextlib.suppress(OSError):
        for other in place.iterdir():
            with contextlib.suppress(OSError):
                if CACHE_NAME.fullmatch(other.name) and other.is_dir():
                    found.append((other.stat().st_mtime, other))
    return (other for _, other in sorted(found))


def size_of(cache: Path) -> int:
    """The bytes of a cache's files."""
    total = 0
    with contextlib.suppress(OSError):
        for file in cache.iterdir():
            with contextlib.suppress(OSError):
                total += file.stat().st_size
    return total


def is_old(cache: Path) -> bool:
    """Whether nobody has opened the cache for a day."""
    try:
        return time.time() - cache.stat().st_mtime > SECONDS_KEPT
    except OSError:
        return False


class Room:
    """The bytes that a new cache may take, so that all caches keep within their limit.

    Args:
        place: The folder of the caches.
        new: The folder of the new cache.
        limit: Most bytes of all caches together; None: half of the bytes that are free or that
            caches take.
    """

    def __init__(self, place: Path, new: Path, limit: int | None) -> None:
        sizes = {cache: size_of(cache) for cache in caches(place)}
        free, own = shutil.disk_usage(place).free, sizes.pop(new, 0)
        self._others, self._kept = sizes, 0  # kept: bytes of caches that are in use
        self._on_disk = free + own + sum(sizes.values())
        self._limit = self._on_disk // 2 if limit is None else limit

    def __str__(self) -> str:
        return f"all caches there may take {self._limit / 2**30:.3g} GiB"

    @property
    def given(self) -> int:
        """The bytes that the new cache has without the removal of another one."""
        return self._limit - self._kept - sum(self._others.values())

    @property
    def most(self) -> int:
        """The bytes that the new cache can have if all caches that nobody uses are removed."""
        used = sum(size for cache, size in self._others.items() if _is_used(cache))
        return min(self._limit, self._on_disk) - used

    def has(self, num_bytes: int) -> bool:
        """Whether the new cache may have this many bytes.

        Removes the least recently used caches if that makes the room.
        """
        while num_bytes > self.given:
            if not self._others or num_bytes > self._limit - self._kept:
                return False
            oldest = next(iter(self._others))
            size = self._others.pop(oldest)
            self._kept += 0 if remove_unless_used(oldest) else size
        return True


def _is_used(cache: Path) -> bool:
    """Whether a process holds the cache, or whether that cannot be known."""
    try:
        with (cache / FACTS).open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return not is_old(cache)
    except OSError:
        return True
    return False
