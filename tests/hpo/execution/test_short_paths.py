import os
import tempfile
from pathlib import Path

import pytest

from hpo.errors import ClusterError
from hpo.execution import short_paths
from hpo.execution.short_paths import MOST_BYTES, short_temporary_folder


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


def test_a_short_temporary_folder_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/tmp")
    with short_temporary_folder():
        assert os.environ["TMPDIR"] == "/tmp"


def test_without_any_short_folder_the_variable_is_named(
    long: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.setattr(short_paths, "SHORT_ROOTS", ("/proc",))  # nobody may write there
    message = rf"TMPDIR is too long .* at most {MOST_BYTES} .*{long}"
    with pytest.raises(ClusterError, match=message), short_temporary_folder():
        pass
