import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock
import pytest

from sgformer import locks
from sgformer.locks import lock_of, take

# No file system without flock can be mounted here, so flock is replaced by one that refuses.
HOLD = """
import errno, fcntl, pathlib, socket, sys
from sgformer import locks

_, path, code, hostname, seconds = sys.argv

def refuse(*arguments):
    raise OSError(int(code), "no flock")

if int(code):
    fcntl.flock = refuse
if hostname:
    socket.gethostname = lambda: hostname
locks.LEASE_SECONDS = float(seconds)
lock = locks.lock_of(pathlib.Path(path))
lock.acquire(timeout=0)
print("mine", flush=True)
sys.stdin.read()
"""


@contextmanager
def held(path: Path, code: int, hostname: str = "") -> Iterator[subprocess.Popen]:
    """Another process that holds the lock."""
    command = [sys.executable, "-c", HOLD, str(path), str(code), hostname]
    with subprocess.Popen(
        [*command, str(locks.LEASE_SECONDS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"mine\n"
        try:
            yield other
        finally:
            other.kill()


@pytest.fixture(params=[errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK], ids=errno.errorcode.get)
def code(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """The error of flock on a file system that lacks it."""
    number: int = request.param

    def refuse(*_arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(locks, "LEASE_SECONDS", 1.5)
    return number


def test_a_lock_is_one_processs_and_ends_with_it(tmp_path: Path) -> None:
    lock, told = lock_of(tmp_path / "lock"), []
    with held(tmp_path / "lock", 0) as other:
        with pytest.raises(filelock.Timeout):
            take(lock, told.append)
        other.kill()
        other.wait()
        take(lock, told.append)
    lock.release()
    assert told == []


def test_without_flock_a_lock_is_one_processs_and_ends_with_it(tmp_path: Path, code: int) -> None:
    lock, told = lock_of(tmp_path / "lock"), []
    with held(tmp_path / "lock", code) as other:
        with pytest.raises(filelock.Timeout):
            take(lock, told.append)
        assert len(told) == 1
        other.kill()
        other.wait()
        take(lock, told.append)  # at once: no process of this machine has that id
        assert len(told) == 1
    lock.release()
    assert not (tmp_path / "lock").exists()


@pytest.mark.parametrize("code", [errno.ENOSYS], indirect=True)
def test_without_flock_the_lock_of_a_dead_node_is_taken_over(tmp_path: Path, code: int) -> None:
    lock, told = lock_of(tmp_path / "lock"), []
    with held(tmp_path / "lock", code, "node7") as other:
        with pytest.raises(filelock.Timeout):
            take(lock, told.append)
        other.kill()
        other.wait()
        take(lock, told.append)
    lock.release()
    assert told[0].startswith(f"{tmp_path}/lock is locked; waiting at most 2 seconds to see ")


def test_a_folder_that_cannot_be_written_to_is_no_folder_without_flock(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        lock_of(tmp_path / "none" / "lock")
