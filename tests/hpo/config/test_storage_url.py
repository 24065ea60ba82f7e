from pathlib import Path

import pytest

from hpo.config.storage_url import (
    file_of,
    has_password,
    is_encoded,
    is_in_memory,
    sqlite_url,
    with_absolute_path,
    without_password,
)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql+psycopg://u:p@h:1/d", "postgresql+psycopg://u@h:1/d"),
        ("postgresql://h/d?user=u&password=p", "postgresql://h/d?user=u"),
        ("mysql://h/d?user=u&passwd=p", "mysql://h/d?user=u"),
        ("postgresql://u:p%40%2F@h/d", "postgresql://u@h/d"),
        ("postgresql://user@server:p@h/d", "postgresql://user%40server@h/d"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("sqlite:///a/b.db", "sqlite:///a/b.db"),
        ("journal:/a:b@c", "journal:/a:b@c"),
    ],
)
def test_passwords_are_left_out(url: str, expected: str) -> None:
    assert without_password(url) == expected
    assert not has_password(expected)
    assert is_encoded(url)


@pytest.mark.parametrize("password", ["a/b", "a@b", "a/b@c", "a?b", "a#b", "50%", "a%zz", "1/@?x"])
def test_a_password_that_is_not_encoded_is_seen_and_no_part_of_it_shown(password: str) -> None:
    url = f"postgresql+psycopg://user:{password}@localhost/db"
    assert has_password(url)
    assert not is_encoded(url)
    assert without_password(url) == "postgresql+psycopg://..."


@pytest.mark.parametrize(
    "name",
    ["team_feature%2Fx", "why?", "a#b", "100%", "{x}", "ä ö", "a&b=c", "50%41", "plain"],
)
def test_the_url_of_a_file_names_that_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name / "study.db"
    url = sqlite_url(path)
    assert file_of(url) == path
    assert with_absolute_path(url) == url


def test_a_files_url_is_made_valid_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "50% of #1"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert file_of(with_absolute_path("sqlite:///a.db")) == folder / "a.db"
    assert file_of(with_absolute_path("sqlite+pysqlite:///b/a.db")) == folder / "b" / "a.db"
    assert with_absolute_path("journal:a/b") == f"journal:{folder}/a/b"
    assert with_absolute_path("postgresql://u@h/d") == "postgresql://u@h/d"
    assert with_absolute_path("sqlite:////x/a.db") == "sqlite:////x/a.db"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:///:memory:", True),
        ("sqlite://", True),
        ("sqlite:///", True),
        ("sqlite:///file::memory:?cache=shared&uri=true", True),
        ("sqlite:///memory.db", False),
        ("journal::memory:", False),
        ("postgresql://h/memory", False),
    ],
)
def test_what_no_file_keeps_is_known(url: str, expected: bool) -> None:
    assert is_in_memory(url) == expected
