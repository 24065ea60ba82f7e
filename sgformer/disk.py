"""Tells a full disk from other errors, and gives users without a home directory one."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from sgformer.errors import DataError, DiskFullError


@contextlib.contextmanager
def noticing_full_disk(folder: Path) -> Iterator[None]:
    """Turns an error that says the folder's disk is full into DiskFullError."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        is_full = getattr(error, "errno", None) in {errno.ENOSPC, errno.EDQUOT}
        if not is_full and "No space left" not in str(error):
            raise
        raise DiskFullError(f"no space left on the disk of {folder}") from error


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
