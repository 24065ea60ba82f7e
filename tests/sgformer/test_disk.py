import errno
import shutil
from pathlib import Path

import pytest

from sgformer import disk
from sgformer.disk import file_system, is_on_a_network, noticing_full_disk
from sgformer.errors import DiskFullError


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("name", ["scratch/pixels.bin", "run/trials/0/last.safetensors"])
def test_the_disk_that_is_full_is_named_and_not_always_the_runs(
    name: str, run: Path, tmp_path: Path
) -> None:
    expected = run if name.startswith("run") else tmp_path / name
    with pytest.raises(DiskFullError, match=rf"of {expected}$"), noticing_full_disk(run):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / name))


def test_without_a_name_the_place_without_space_is_named(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full, usage = tmp_path / "shm", shutil.disk_usage(tmp_path)
    monkeypatch.setattr(disk, "OTHER_PLACES", (str(full),))
    with pytest.raises(DiskFullError, match=rf"of {run}$"), noticing_full_disk(run):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")
    monkeypatch.setattr(
        shutil, "disk_usage", lambda place: usage._replace(free=0) if place == full else usage
    )
    with pytest.raises(DiskFullError, match=rf"of {full}$"), noticing_full_disk(run):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_another_error_is_passed_on(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), noticing_full_disk(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied")


def test_the_last_mount_above_a_path_says_what_disk_it_is_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "mounts"
    here = str(tmp_path / "a b").replace(" ", "\\040")
    table.write_text(f"x / ext4 rw 0 0\nx {here} nfs4 rw 0 0\nx {here}/c xfs rw 0 0\n")
    monkeypatch.setattr(disk, "MOUNTS", table)
    assert file_system(tmp_path) == "ext4"
    assert is_on_a_network(tmp_path / "a b" / "d")
    assert not is_on_a_network(tmp_path / "a b" / "c" / "d")
    assert file_system(tmp_path / "a bc") == "ext4"


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "lustre", "fuse.sshfs", "gpfs"])
def test_file_systems_of_networks_are_known(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "mounts"
    table.write_text(f"x / {kind} rw 0 0\n")
    monkeypatch.setattr(disk, "MOUNTS", table)
    assert is_on_a_network(tmp_path)
