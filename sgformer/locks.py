"""Locks between processes, by a file; also on file systems that have no flock."""

import errno
import fcntl
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import filelock

# What flock says where there is none: Lustre without its option, FUSE, NFS without a lock daemon.
WITHOUT_FLOCK: Final = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)
# A process that has not touched its lock for this long has lost it, where there is no flock.
LEASE_SECONDS: Final = 60.0
BEATS: Final = 6  # touches in this time
SLACK: Final = 1.25  # how much longer a waiting process looks on


def lock_of(path: Path) -> filelock.BaseFileLock:
    """A lock that processes share by this file; any thread may release it.

    The kernel ends it with its process. Where the folder has no flock, the file's existence is
    the lock, and its holder touches it every ten seconds. Another process takes it at once if the
    holder is known to have ended, as on the same machine, else when it has not been touched for a
    minute. A holder that was halted for longer does not notice the loss.

    Raises:
        OSError: The folder cannot be written to.
    """
    if _has_flock(path.parent):
        return filelock.FileLock(path, thread_local=False)
    beat = LEASE_SECONDS / BEATS
    return filelock.SoftFileLease(
        path, lease_duration=LEASE_SECONDS, heartbeat_interval=beat, thread_local=False
    )


def take(lock: filelock.BaseFileLock, tell: Callable[[str], None]) -> None:
    """Takes a lock that no living process has.

    Args:
        lock: A lock of `lock_of`.
        tell: Is called with a message if the holder is watched for a minute, which is so only
            where there is no flock.

    Raises:
        filelock.Timeout: A process that lives has the lock.
    """
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        if not isinstance(lock, filelock.SoftFileLease):
            raise
        seconds = SLACK * LEASE_SECONDS
        tell(
            f"{lock.lock_file} is locked; waiting at most {seconds:.0f} seconds to see whether "
            "the process that locked it still lives"
        )
        lock.acquire(timeout=seconds, poll_interval=min(1.0, LEASE_SECONDS / BEATS))


def _has_flock(folder: Path) -> bool:
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno not in WITHOUT_FLOCK
        return True
