import fcntl
import os
from pathlib import Path

import pytest
from mounts import pretend_mounted

from sgformer.data import cache_place as module
from sgformer.data.cache_place import cache_place, hold, make_place, remove_unless_used

NAME = f"sgformer-cache-{os.getuid()}"


@pytest.fixture(autouse=True)
def _nothing_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("SGFORMER_CACHE", *module.SCRATCH_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(module, "SCRATCH_FOLDERS", ())
    for name in ("home", "tmp", "scratch"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))


def test_the_order_of_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pretend_mounted(monkeypatch, tmp_path)
    assert cache_place(None) == tmp_path / "tmp" / NAME
    monkeypatch.setenv("SLURM_TMPDIR", str(tmp_path / "scratch"))
    assert cache_place(None) == tmp_path / "scratch" / NAME
    monkeypatch.setenv("SGFORMER_CACHE", str(tmp_path / "mine"))
    assert cache_place(None) == tmp_path / "mine"
    assert cache_place(Path("~/chosen")) == tmp_path / "home" / "chosen"


def test_a_network_or_memory_disk_is_no_default_while_there_is_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SLURM_TMPDIR", str(tmp_path / "scratch"))
    pretend_mounted(monkeypatch, tmp_path, scratch="lustre", home="nfs4")
    assert cache_place(None) == tmp_path / "tmp" / NAME
    pretend_mounted(monkeypatch, tmp_path, scratch="lustre", tmp="tmpfs", home="nfs4")
    assert cache_place(None) == Path("/var/tmp", NAME)
    monkeypatch.setattr(module.os, "access", lambda path, _mode: not str(path).startswith("/var"))
    assert cache_place(None) == tmp_path / "scratch" / NAME  # before a home on the network
    pretend_mounted(monkeypatch, tmp_path, scratch="lustre", tmp="tmpfs")
    assert cache_place(None) == tmp_path / "home" / ".cache" / "sgformer-hpo"


def test_a_folder_that_another_user_made_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pretend_mounted(monkeypatch, tmp_path)
    (tmp_path / "tmp" / NAME).symlink_to(tmp_path / "scratch")
    assert cache_place(None) != tmp_path / "tmp" / NAME


def test_a_default_place_is_its_owners_alone(tmp_path: Path) -> None:
    place = cache_place(None)
    make_place(place, None)
    assert place.stat().st_mode & 0o777 == 0o700


def cache_in(place: Path) -> Path:
    cache = place / f"{'0' * 32}-32-v3"
    cache.mkdir()
    (cache / "facts.json").write_text("{}")
    return cache


def test_a_cache_that_is_held_is_not_removed(tmp_path: Path) -> None:
    cache = cache_in(tmp_path)
    with hold(cache):
        assert not remove_unless_used(cache)
    assert remove_unless_used(cache)
    assert not cache.exists()
    with pytest.raises(FileNotFoundError):
        hold(cache)


def test_without_locks_a_cache_is_opened_and_never_removed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_arguments: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    cache = cache_in(tmp_path)
    hold(cache).close()
    assert not remove_unless_used(cache)


def test_a_scratch_that_does_not_exist_is_not_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pretend_mounted(monkeypatch, tmp_path)
    monkeypatch.setenv("SLURM_TMPDIR", str(tmp_path / "ended-job"))
    assert cache_place(None) == tmp_path / "tmp" / NAME
