"""A full disk, told from other errors; a home for users that have none."""

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
    """A folder of this user's alone, in the temporary folder, that stays from run to run.

    Raises:
        DataError: Another user has made a folder of that name.
    """
    home = Path(tempfile.gettempdir()) / f"home-of-{os.getuid()}"
    home.mkdir(mode=0o700, exist_ok=True)
    if home.stat().st_uid != os.getuid():
        raise DataError(f"there is no home, and {home} is another user's; set HOME")
    return home
