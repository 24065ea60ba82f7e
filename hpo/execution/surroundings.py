"""What Ray and others expect of their surroundings: a home, and a short temporary folder."""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hpo.errors import ClusterError
from sgformer.disk import temporary_home

# Source: sockaddr_un of Linux, unix(7): 108 bytes with the final zero.
MOST_SOCKET_BYTES: Final = 107
# Source: Ray 2.60, ray/_private/node.py: what it adds to the temporary folder, a long pid in it.
RAY_SOCKET: Final = "/ray/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store"
MOST_BYTES: Final = MOST_SOCKET_BYTES - len(RAY_SOCKET)
SHORT_ROOTS: Final = ("/tmp", "/var/tmp", "/dev/shm")
NUM_TRIES: Final = 20  # to remove a folder
SECONDS_BETWEEN_TRIES: Final = 0.1
VARIABLES: Final = ("RAY_TMPDIR", "TMPDIR")


@contextlib.contextmanager
def usable_surroundings() -> Iterator[None]:
    """Gives this process and its children a home and a short temporary folder, if they lack one.

    Raises:
        InputError: There is neither, and none can be made.
    """
    with some_home(), short_temporary_folder():
        yield


@contextlib.contextmanager
def short_temporary_folder() -> Iterator[None]:
    """Where TMPDIR is too long for a socket's path, replaces it, for this process's children too.

    A batch system's folder of a job is often longer than the 39 bytes that Ray leaves. Beyond 75
    bytes a DataLoader with worker processes waits for ever, too. The folder that takes its place
    is removed at the end.

    Raises:
        ClusterError: TMPDIR is too long, and there is no shorter folder that can be written to.
    """
    too_long = [name for name in VARIABLES if _num_bytes(os.environ.get(name)) > MOST_BYTES]
    if not too_long:
        yield
        return
    folder = _make_short(os.environ[too_long[0]], too_long[0])
    former = {name: os.environ[name] for name in too_long}
    try:
        _set(dict.fromkeys(too_long, folder))
        yield
    finally:
        _set(former)
        _remove(folder)


@contextlib.contextmanager
def some_home() -> Iterator[None]:
    """Gives a user without a home one in the temporary folder, for this process's children too.

    A container that is run under a number has none, or the root folder, which it may not write
    to. Ray keeps a token at home, and the decoded images are cached there.

    Raises:
        DataError: The folder that would take its place is another user's.
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
    """Whether there is a home that can be written to, or at least holds Ray's token."""
    try:
        home = Path.home()
    except RuntimeError:
        return False
    return os.access(home, os.W_OK) or (home / ".ray").is_dir()


def _remove(folder: str) -> None:
    """Deletes the folder; processes of a Ray that was just ended may still write to it."""
    for _ in range(NUM_TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        if not Path(folder).exists():
            return
        time.sleep(SECONDS_BETWEEN_TRIES)


def _num_bytes(path: str | None) -> int:
    return len(os.fsencode(path or ""))


def _set(variables: dict[str, str]) -> None:
    os.environ |= variables
    tempfile.tempdir = None  # Python keeps what TMPDIR was


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
