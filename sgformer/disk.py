"""A full disk, told from other errors."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from sgformer.errors import DiskFullError


@contextlib.contextmanager
def noticing_full_disk(folder: Path) -> Iterator[None]:
    """Raises DiskFullError for what shows that the folder's disk is full."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        is_full = getattr(error, "errno", None) in {errno.ENOSPC, errno.EDQUOT}
        if not is_full and "No space left" not in str(error):
            raise
        raise DiskFullError(f"no space left on the disk of {folder}") from error
