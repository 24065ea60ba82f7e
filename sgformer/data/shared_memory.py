"""Fits loading processes to shared memory, through which they hand their batches over."""

import errno
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SHARED_MEMORY: Final = Path("/dev/shm")
PREFETCH: Final = 4  # batches that a loading process loads ahead
NUM_HELD: Final = 2  # batches that the training process holds: the present and the next one
USABLE: Final = 0.8  # share of what is free: Ray and other trainings take some, too
MIB: Final = 2**20


@dataclass(frozen=True)
class Loading:
    """How batches are loaded.

    Attributes:
        num_workers: The number of loading processes; 0: the training process loads.
        prefetch: Batches that each process loads ahead.
        note: What was changed for want of shared memory, for the user; None: nothing.
    """

    num_workers: int
    prefetch: int = PREFETCH
    note: str | None = None


def free_shared_memory() -> int | None:
    """Bytes that are free in /dev/shm; None if there is no such place."""
    try:
        return shutil.disk_usage(SHARED_MEMORY).free
    except OSError:
        return None


def fitted(num_workers: int, batch_bytes: int, free: int | None) -> Loading:
    """As many of the processes, and of the batches that each loads ahead, as memory has room for.

    Fewer batches ahead come before fewer processes.

    Args:
        num_workers: The processes that are asked for.
        batch_bytes: The size of a batch of images.
        free: Free bytes of shared memory; None: unknown.
    """
    if num_workers == 0 or free is None:
        return Loading(num_workers)
    choices = [Loading(num_workers, prefetch) for prefetch in range(PREFETCH, 0, -1)]
    choices += [Loading(fewer, 1) for fewer in range(num_workers - 1, 0, -1)]
    fits = (one for one in choices if _needed(one, batch_bytes) <= USABLE * free)
    found = next(fits, Loading(0))
    if found == choices[0]:
        return found
    return _noted(found, choices[0], batch_bytes, free)


def with_fewer(former: Loading, batch_bytes: int, free: int | None) -> Loading:
    """The loading after shared memory ran out: half the processes, each a batch ahead."""
    return _noted(Loading(former.num_workers // 2, 1), former, batch_bytes, free)


def _noted(found: Loading, asked: Loading, batch_bytes: int, free: int | None) -> Loading:
    """The loading with a note about the shared memory that it lacks."""
    needed = _needed(asked, batch_bytes)
    how = f"{_processes(found.num_workers)} load, {_batches(found.prefetch)} ahead"
    if found.num_workers == 0:
        how = "the training process itself loads the images, which may take longer"
    note = (
        f"/dev/shm has {(free or 0) // MIB} MiB free, and {_processes(asked.num_workers)} that "
        f"load images use up to {-(-needed // MIB)} MiB: {how}; give a container more with "
        f"--shm-size={-(-2 * needed // 2**30)}g"
    )
    return Loading(found.num_workers, found.prefetch, note)


def _needed(loading: Loading, batch_bytes: int) -> int:
    return (loading.num_workers * loading.prefetch + NUM_HELD) * batch_bytes


def _processes(number: int) -> str:
    return "one process" if number == 1 else f"{number} processes"


def _batches(number: int) -> str:
    return "one batch" if number == 1 else f"{number} batches"


def lacks_shared_memory(error: BaseException) -> bool:
    """Whether there was no shared memory for a batch, or for the locks of loading processes."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOSPC
    signs = ("unable to allocate shared memory", "out of shared memory", "Bus error")
    return any(sign in str(error) for sign in signs)
