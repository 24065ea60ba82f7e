"""Recognises a full disk among the errors of writing a file."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from sgformer.errors import DiskFullError


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
