"""Folders on other file systems: pretended ones, and one that FUSE serves."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sgformer import disk


def pretend_mounted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **kinds: str) -> None:
    """Pretends that folders are mounts of these kinds of file systems.

    Args:
        monkeypatch: Ends the pretence.
        tmp_path: The folder of the folders; it gets the table of mounts.
        kinds: The kinds by the folders' names.
    """
    lines = [f"x {tmp_path / name} {kind} rw 0 0\n" for name, kind in kinds.items()]
    table = tmp_path / "mounts"
    table.write_text("".join(["disk / ext4 rw 0 0\n", *lines]))
    monkeypatch.setattr(disk, "MOUNTS", table)


@contextmanager
def served_by_fuse(folder: Path) -> Iterator[Path]:
    """A folder that bindfs serves, as sshfs and others serve remote ones; skips without it."""
    if shutil.which("bindfs") is None or not Path("/dev/fuse").exists():
        pytest.skip("there is no bindfs or no /dev/fuse here (Debian: apt-get install bindfs)")
    source = folder.with_name(f"{folder.name}-source")
    source.mkdir()
    folder.mkdir()
    done = subprocess.run(["bindfs", source, folder], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"bindfs cannot mount here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
