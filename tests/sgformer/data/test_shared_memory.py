import errno

import pytest

from sgformer.data.shared_memory import (
    Loading,
    fitted,
    free_shared_memory,
    lacks_shared_memory,
    with_fewer,
)

MIB = 2**20


@pytest.mark.parametrize(
    ("num_workers", "free", "expected"),
    [
        (2, 1000 * MIB, (2, 4)),
        (2, None, (2, 4)),
        (0, MIB, (0, 4)),
        (2, 100 * MIB, (2, 3)),  # (2 x 3 + 2) x 10 MiB of 80 % of it
        (7, 100 * MIB, (6, 1)),
        (7, 40 * MIB, (1, 1)),
        (7, 30 * MIB, (0, 4)),
    ],
)
def test_batches_ahead_and_then_processes_are_given_up_until_it_fits(
    num_workers: int, free: int | None, expected: tuple[int, int]
) -> None:
    found = fitted(num_workers, 10 * MIB, free)
    assert (found.num_workers, found.prefetch) == expected
    assert (found.note is None) == (found in (Loading(2), Loading(0)))


def test_the_note_names_the_place_the_need_and_the_remedy() -> None:
    note = fitted(7, 10 * MIB, 64 * MIB).note or ""
    assert note == (
        "/dev/shm has 64 MiB free, and 7 processes that load images use up to 300 MiB: "
        "3 processes load, one batch ahead; give a container more with --shm-size=1g"
    )
    assert "the training process itself loads" in (fitted(7, 10 * MIB, MIB).note or "")


def test_when_memory_runs_out_half_of_the_processes_are_left() -> None:
    found = with_fewer(Loading(7), 10 * MIB, 0)
    assert (found.num_workers, found.prefetch) == (3, 1)
    assert "--shm-size" in (found.note or "")
    assert with_fewer(Loading(1, 1), MIB, 0).num_workers == 0


def test_this_machine_tells_what_is_free() -> None:
    free = free_shared_memory()
    assert free is None or free > 0


def test_what_torch_says_of_a_lack_is_known() -> None:
    said = "unable to allocate shared memory(shm) for file </torch_1_2>: No space left on device"
    assert lacks_shared_memory(RuntimeError(f"Caught RuntimeError in DataLoader worker.\n{said}"))
    killed = "DataLoader worker (pid 7) is killed by signal: Bus error."
    assert lacks_shared_memory(RuntimeError(killed))
    assert not lacks_shared_memory(RuntimeError("a cosmic ray"))
    assert lacks_shared_memory(OSError(errno.ENOSPC, "No space left on device"))  # for a lock
    assert not lacks_shared_memory(OSError(errno.EIO, "Input/output error"))
