"""A temporary folder whose path is short enough for the sockets of Ray and of image loaders."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hpo.errors import ClusterError

# Source: sockaddr_un of Linux, unix(7): 108 bytes with the final zero.
MOST_SOCKET_BYTES: Final = 107
# Source: Ray 2.60, ray/_private/node.py: what it adds to the temporary folder, a long pid in it.
RAY_SOCKET: Final = "/ray/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store"
MOST_BYTES: Final = MOST_SOCKET_BYTES - len(RAY_SOCKET)
SHORT_ROOTS: Final = ("/tmp", "/var/tmp", "/dev/shm")
VARIABLES: Final = ("RAY_TMPDIR", "TMPDIR")


@contextlib.contextmanager
def short_temporary_folder() -> Iterator[None]:
    """Where TMPDIR is too long for a socket's path, replaces it, for this process's children too.

    A batch system's folder of a job is often longer than the 39 bytes that Ray leaves. The
    folder that takes its place is removed at the end.

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
        shutil.rmtree(folder, ignore_errors=True)


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
