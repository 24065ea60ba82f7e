import os
import shutil
import tempfile
from pathlib import Path

import pytest

from hpo.errors import ClusterError
from hpo.execution import surroundings
from hpo.execution.surroundings import MOST_BYTES, short_temporary_folder, some_home
from sgformer.data.cache_place import cache_place


@pytest.fixture
def long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / ("x" * 75)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_a_long_temporary_folder_is_replaced_and_the_short_one_is_removed(
    long: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, str(long))
    with short_temporary_folder():
        short = Path(os.environ[name])
        assert short.is_dir()
        assert len(str(short)) <= MOST_BYTES
        assert name != "TMPDIR" or tempfile.gettempdir() == str(short)
    assert not short.exists()
    assert os.environ[name] == str(long)
    assert name != "TMPDIR" or tempfile.gettempdir() == str(long)


def test_decoded_images_outlive_the_short_folder(
    long: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SGFORMER_CACHE", raising=False)
    monkeypatch.setenv("TMPDIR", str(long))
    before = cache_place(None)
    with short_temporary_folder():
        assert cache_place(None) == before
    assert "SGFORMER_CACHE" not in os.environ


def test_a_short_temporary_folder_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/tmp")
    with short_temporary_folder():
        assert os.environ["TMPDIR"] == "/tmp"


def test_without_any_short_folder_the_variable_is_named(
    long: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.setattr(surroundings, "SHORT_ROOTS", ("/proc",))  # nobody may write there
    message = rf"TMPDIR is too long .* at most {MOST_BYTES} .*{long}"
    with pytest.raises(ClusterError, match=message), short_temporary_folder():
        pass


@pytest.mark.parametrize("home", [None, "/proc"])  # where nobody may write
def test_who_has_no_home_gets_one_in_the_temporary_folder(
    home: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != "/proc")  # root may
    if home is None:
        monkeypatch.delenv("HOME")
        monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # as for a user who has only a number
    else:
        monkeypatch.setenv("HOME", home)
    with some_home():
        assert Path.home().parent == tmp_path
        assert Path.home().stat().st_mode & 0o777 == 0o700
    assert os.environ.get("HOME") == home


def test_a_home_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with some_home():
        assert Path.home() == tmp_path


def test_the_short_folder_is_removed_though_a_dying_process_still_writes_to_it(
    long: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(long))
    remove, tries = shutil.rmtree, []

    def fail_at_first(folder: str, *, ignore_errors: bool) -> None:
        tries.append(folder)
        if len(tries) > 2:
            remove(folder, ignore_errors=ignore_errors)

    monkeypatch.setattr(shutil, "rmtree", fail_at_first)
    with short_temporary_folder():
        short = Path(os.environ["TMPDIR"])
    assert not short.exists()
