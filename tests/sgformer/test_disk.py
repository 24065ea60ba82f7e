import errno
from pathlib import Path

import pytest

from sgformer import disk
from sgformer.disk import file_system, is_on_a_network, noticing_full_disk
from sgformer.errors import DiskFullError


def test_the_disk_that_is_full_is_named_and_not_the_runs(tmp_path: Path) -> None:
    other = tmp_path / "scratch" / "pixels.bin"
    with pytest.raises(DiskFullError, match=rf"no space left on the disk of {other}"):  # noqa: SIM117
        with noticing_full_disk(tmp_path):
            raise OSError(errno.ENOSPC, "No space left on device", str(other))


def test_without_a_name_the_place_without_space_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = tmp_path / "shm"
    full.mkdir()
    usage = disk.shutil.disk_usage(tmp_path)

    def pretend(place: Path) -> object:
        return usage._replace(free=0) if Path(place) == full else usage

    monkeypatch.setattr(disk, "OTHER_PLACES", (str(full),))
    monkeypatch.setattr(disk.shutil, "disk_usage", pretend)
    with pytest.raises(DiskFullError, match=rf"of {full}$"), noticing_full_disk(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(DiskFullError, match=rf"of {tmp_path}$"), noticing_full_disk(tmp_path):
        raise OSError(errno.EDQUOT, "Disk quota exceeded", None)


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
