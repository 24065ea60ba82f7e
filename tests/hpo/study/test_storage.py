from pathlib import Path

import pytest

from hpo.errors import StudyError
from hpo.study.storage import (
    check_storage_url,
    open_storage,
    storage_exists,
    with_absolute_path,
    without_password,
)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "not a storage URL: 'nonsense'"),
        ("sqlite:////nowhere/deep/study.db", "cannot use storage sqlite:////nowhere"),
        ("journal:/nowhere/deep/file", "cannot use storage journal:/nowhere"),
        ("postgresql+psycopg://u:secret@127.0.0.1:9/db", "cannot use storage postgresql"),
        (
            "postgresql+psycopg://u:secret@h:port/db",
            "not a storage URL: 'postgresql.psycopg://u@h:port/db'",
        ),
        ("journal:pyproject.toml", "cannot use storage journal:pyproject.toml"),
        ("oracle://u:secret@h/d", "cannot use storage oracle://u@h/d"),
    ],
)
def test_unusable_storages_are_refused_without_their_password(url: str, message: str) -> None:
    with pytest.raises(StudyError, match=message) as caught:
        open_storage(url)
    assert "secret" not in str(caught.value)


def test_a_url_can_be_checked_without_being_opened(tmp_path: Path) -> None:
    check_storage_url(f"sqlite:///{tmp_path / 'x.db'}")
    check_storage_url("journal:file")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StudyError, match="not a storage URL: 'what'"):
        check_storage_url("what")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql+psycopg://u:p@h:1/d", "postgresql+psycopg://u@h:1/d"),
        ("postgresql://h/d?user=u&password=p", "postgresql://h/d?user=u"),
        ("sqlite:///a/b.db", "sqlite:///a/b.db"),
        ("journal:/a:b@c", "journal:/a:b@c"),
    ],
)
def test_passwords_are_left_out(url: str, expected: str) -> None:
    assert without_password(url) == expected


def test_a_files_url_is_made_valid_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert with_absolute_path("sqlite:///a.db") == f"sqlite:///{tmp_path}/a.db"
    assert with_absolute_path("journal:a/b") == f"journal:{tmp_path}/a/b"
    assert with_absolute_path("postgresql://u@h/d") == "postgresql://u@h/d"


def test_a_file_storage_that_is_not_there_is_seen_before_it_is_made(tmp_path: Path) -> None:
    for prefix in ("sqlite:///", "journal:"):
        assert not storage_exists(f"{prefix}{tmp_path / 'x'}")
    assert storage_exists("postgresql://h/d")
    assert list(tmp_path.iterdir()) == []
