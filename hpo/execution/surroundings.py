"""Provides what Ray and DataLoaders need: a home folder, and a short path of temporary files."""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hpo.errors import ClusterError
from sgformer.data.cache_place import CACHE_VARIABLE, cache_place
from sgformer.disk import temporary_home

# Source: sockaddr_un of Linux, unix(7): 108 bytes with the final zero.
MOST_SOCKET_BYTES: Final = 107
# The path that Ray adds to the temporary folder, with the longest process id.
# Source: Ray 2.60, ray/_private/node.py.
RAY_SOCKET: Final = "/ray/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store"
MOST_BYTES: Final = MOST_SOCKET_BYTES - len(RAY_SOCKET)
SHORT_ROOTS: Final = ("/tmp", "/var/tmp", "/dev/shm")
NUM_TRIES: Final = 20  # attempts to remove a folder
SECONDS_BETWEEN_TRIES: Final = 0.1
VARIABLES: Final = ("RAY_TMPDIR", "TMPDIR")


@contextlib.contextmanager
def usable_surroundings() -> Iterator[None]:
    """Provides a home and a short temporary folder for this process and its children if missing.

    Raises:
        InputError: One of the two is missing, and cannot be made.
    """
    with some_home(), short_temporary_folder():
        yield


@contextlib.contextmanager
def short_temporary_folder() -> Iterator[None]:
    """Replaces TMPDIR for the block, and for child processes, if its path is too long for sockets.

    Ray leaves 39 bytes for the temporary folder's path, and job folders of batch systems are
    often longer. Beyond 75 bytes a DataLoader with worker processes hangs, too. The replacement
    folder is removed at the end of the block. Decoded images, whose path may be long, go where
    they would have gone.

    Raises:
        ClusterError: TMPDIR is too long, and no shorter folder is writable.
    """
    too_long = [name for name in VARIABLES if _num_bytes(os.environ.get(name)) > MOST_BYTES]
    if not too_long:
        yield
        return
    folder = _make_short(os.environ[too_long[0]], too_long[0])
    former = {name: os.environ[name] for name in too_long}
    is_cache_placed = CACHE_VARIABLE in os.environ
    os.environ.setdefault(CACHE_VARIABLE, str(cache_place(None)))
    try:
        _set(dict.fromkeys(too_long, folder))
        yield
    finally:
        _set(former)
        if not is_cache_placed:
            del os.environ[CACHE_VARIABLE]
        _remove(folder)


@contextlib.contextmanager
def some_home() -> Iterator[None]:
    """Sets HOME to a temporary folder for the block, and for child processes, if there is no home.

    A container that runs under a numeric user id has no home, or an unwritable one such as /.
    Weights are looked for in the home folder, and a cluster's token is.

    Raises:
        DataError: The temporary home folder belongs to another user.
    """
    if _has_home():
        yield
        return
    former = os.environ.get("HOME")
    os.environ["HOME"] = str(temporary_home())
    try:
        yield
    finally:
        if former is None:
            del os.environ["HOME"]
        else:
            os.environ["HOME"] = former


def _has_home() -> bool:
    """Whether the home folder is writable, or at least contains Ray's folder .ray."""
    try:
        home = Path.home()
    except RuntimeError:
        return False
    return os.access(home, os.W_OK) or (home / ".ray").is_dir()


def _remove(folder: str) -> None:
    """Deletes the folder, with retries, as processes of a stopping Ray may still write to it."""
    for _ in range(NUM_TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        if not Path(folder).exists():
            return
        time.sleep(SECONDS_BETWEEN_TRIES)


def _num_bytes(path: str | None) -> int:
    return len(os.fsencode(path or ""))


def _set(variables: dict[str, str]) -> None:
    os.environ |= variables
    tempfile.tempdir = None  # else Python goes on using the former TMPDIR


def _make_short(path: str, name: str) -> str:
    for root in SHORT_ROOTS:
        if Path(root).is_dir():
            with contextlib.suppress(OSError):
                return tempfile.mkdtemp(prefix="hpo-", dir=root)
    raise ClusterError(
        f"{name} is too long a path for Ray's sockets: {_num_bytes(path)} bytes, at most "
        f"{MOST_BYTES} are possible, got {path}; set {name} to a shorter one ("
        f"{', '.join(SHORT_ROOTS)} cannot be written to)"
    )
