"""Tells full, network and memory disks apart, and gives users without a home directory one."""

import contextlib
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from safetensors import SafetensorError

from sgformer.errors import DataError, DiskFullError

FULL: Final = (errno.ENOSPC, errno.EDQUOT)  # no space left; the user's quota is reached
MOUNTS: Final = Path("/proc/self/mounts")
# Source: the names that these file systems have in /proc/mounts. What FUSE serves may be on a
# network under any name; fuse-overlayfs is the local root of a container.
OF_A_NETWORK: Final = re.compile(
    r"nfs\d?|cifs|smb.*|lustre|gpfs|beegfs.*|ceph|glusterfs|afs|9p|virtiofs|wekafs|panfs|pvfs2"
    r"|orangefs|ocfs2|gfs2|autofs|fuse(?!\.fuse-overlayfs$)(\..*)?"
)
IN_MEMORY: Final = ("tmpfs", "ramfs")
# Places beside the run folder that a search writes to.
OTHER_PLACES: Final = ("/dev/shm",)
ALMOST_NOTHING: Final = 2**20  # bytes


def is_full(error: BaseException) -> bool:
    """Whether the error says that a disk is full, or that the user's quota is reached."""
    return getattr(error, "errno", None) in FULL or "No space left" in str(error)


@contextlib.contextmanager
def noticing_full_disk(folder: Path) -> Iterator[None]:
    """Turns an error that says a disk is full into DiskFullError, which names the disk."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if not is_full(error):
            raise
        place = _full_place(error, folder)
        raise DiskFullError(f"no space left on the disk of {place}") from error


def _full_place(error: BaseException, folder: Path) -> Path:
    """The path that the error names, else the first place without space, else the folder."""
    if isinstance(name := getattr(error, "filename", None), (str, bytes)):
        path = Path(os.fsdecode(name))
        return folder if path.is_relative_to(folder) else path
    for place in (folder, Path(tempfile.gettempdir()), *map(Path, OTHER_PLACES)):
        with contextlib.suppress(OSError):
            if shutil.disk_usage(place).free < ALMOST_NOTHING:
                return place
    return folder


def file_system(path: Path) -> str:
    """The type of the file system on which a path lies, such as 'ext4'; '' if it is unknown."""
    real, found, longest = os.path.realpath(path), "", -1
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    for line in lines:
        _, where, kind, *_ = line.split(" ")
        where = re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), where)
        is_above = real == where or real.startswith(where.rstrip("/") + "/")
        if is_above and len(where) >= longest:  # the last mount of a place hides earlier ones
            found, longest = kind, len(where)
    return found


def is_on_a_network(path: Path) -> bool:
    """Whether a path lies on a file system of a network, such as NFS."""
    return OF_A_NETWORK.fullmatch(file_system(path)) is not None


def temporary_home() -> Path:
    """A folder below the temporary folder that only this user can enter, the same in every run.

    Raises:
        DataError: Another user owns the folder of that name.
    """
    home = Path(tempfile.gettempdir()) / f"home-of-{os.getuid()}"
    home.mkdir(mode=0o700, exist_ok=True)
    if home.stat().st_uid != os.getuid():
        raise DataError(f"there is no home, and {home} is another user's; set HOME")
    return home


def expanded(path: Path) -> Path:
    """The path with ~ resolved: to `temporary_home` for a user without a home directory."""
    try:
        return path.expanduser()
    except RuntimeError:  # no home, as for a container's user who has only a number
        return temporary_home().joinpath(*path.parts[1:])
