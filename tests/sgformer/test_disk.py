import errno
import shutil
from pathlib import Path

import pytest
from mounts import served_by_fuse

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


# Lines as these file systems have them in /proc/self/mounts.
OF_NETWORKS = (
    "10.0.0.5:/export/runs {} nfs4 rw,relatime,vers=4.2,hard,proto=tcp,addr=10.0.0.5 0 0",
    "filer:/vol/runs {} nfs rw,vers=3,nolock,proto=tcp,mountproto=tcp,local_lock=all 0 0",
    "//filer/runs {} cifs rw,relatime,vers=3.1.1,cache=strict,username=u,uid=0 0 0",
    "//filer/runs {} smb3 rw,relatime,vers=3.1.1 0 0",
    "10.1.1.1@tcp:/scratch {} lustre rw,seclabel,lazystatfs 0 0",
    "gpfs0 {} gpfs rw,relatime 0 0",
    "beegfs_nodev {} beegfs rw,relatime,cfgFile=/etc/beegfs/beegfs-client.conf 0 0",
    "10.0.0.6:6789:/ {} ceph rw,noatime,name=admin,secret=<hidden>,acl 0 0",
    "gfs1:/gv0 {} fuse.glusterfs rw,relatime,user_id=0,group_id=0,allow_other 0 0",
    "me@host:/runs {} fuse.sshfs rw,nosuid,nodev,relatime,user_id=1000 0 0",
    "s3fs {} fuse.s3fs rw,nosuid,nodev,relatime,user_id=0 0 0",
    "JuiceFS:runs {} fuse.juicefs rw,relatime,user_id=0,default_permissions 0 0",
    "/source {} fuse rw,nosuid,nodev,relatime,user_id=0,group_id=0 0 0",
    "C:\\134 {} 9p rw,noatime,dirsync,aname=drvfs,trans=fd 0 0",
    "shared {} virtiofs rw,relatime 0 0",
    "systemd-1 {} autofs rw,relatime,fd=29,pgrp=1,timeout=0,direct 0 0",
)
LOCAL = (
    "/dev/nvme0n1p2 {} ext4 rw,relatime 0 0",
    "/dev/sda1 {} xfs rw,relatime,attr2,inode64 0 0",
    "overlay {} overlay rw,relatime,lowerdir=/l,upperdir=/u,workdir=/w 0 0",
    "fuse-overlayfs {} fuse.fuse-overlayfs rw,nodev,relatime,user_id=0,group_id=0 0 0",
    "tmpfs {} tmpfs rw,nosuid,nodev 0 0",
    "/dev/sdb1 {} fuseblk rw,relatime,user_id=0,group_id=0,blksize=4096 0 0",
    "zroot/home {} zfs rw,xattr,posixacl 0 0",
)


@pytest.mark.parametrize("line", [*OF_NETWORKS, *LOCAL], ids=lambda line: line.split()[2])
def test_file_systems_of_networks_are_known(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "mounts"
    table.write_text(f"/dev/vda / ext4 rw 0 0\n{line.format(tmp_path)}\n")
    monkeypatch.setattr(disk, "MOUNTS", table)
    assert is_on_a_network(tmp_path / "runs") == (line in OF_NETWORKS)


def test_what_fuse_really_serves_counts_as_on_a_network(tmp_path: Path) -> None:
    with served_by_fuse(tmp_path / "served") as folder:
        assert is_on_a_network(folder / "runs")
    assert not is_on_a_network(tmp_path / "served-source")
