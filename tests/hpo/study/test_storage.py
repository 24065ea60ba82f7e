from pathlib import Path

import optuna
import pytest

from hpo.config.schema import SearchConfig, StudyConfig
from hpo.errors import StudyError
from hpo.run_folder import RunFolder
from hpo.study.storage import (
    check_storage_url,
    open_storage,
    storage_exists,
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


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_storage_that_ends_with_the_process_is_refused(url: str) -> None:
    with pytest.raises(StudyError, match="is in memory and gone when the process ends"):
        open_storage(url)


@pytest.mark.parametrize("password", ["se/cret", "se@cret", "se%cret", "se?cret", "se#cret"])
def test_a_password_that_is_not_encoded_is_refused_unseen(password: str) -> None:
    with pytest.raises(StudyError, match=r"write @ / [?] # % as %40 %2F %3F %23 %25") as caught:
        check_storage_url(f"postgresql+psycopg://user:{password}@localhost:1/db")
    assert "cret" not in str(caught.value)


@pytest.mark.parametrize("name", ["team_feature%2Fx", "why?", "a#b", "100%", "{x}", "ä ö"])
def test_a_study_is_made_in_the_file_that_its_folder_names(tmp_path: Path, name: str) -> None:
    folder = RunFolder(tmp_path / name)
    folder.make()
    url = folder.storage_url(SearchConfig.model_construct(study=StudyConfig(num_trials=1)))
    assert not storage_exists(url)
    optuna.create_study(storage=open_storage(url), study_name="a")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (folder.path / "study.db").is_file()
    assert storage_exists(url)
    assert optuna.load_study(storage=open_storage(url), study_name="a").trials == []


def test_a_file_storage_that_is_not_there_is_seen_before_it_is_made(tmp_path: Path) -> None:
    for prefix in ("sqlite:///", "journal:"):
        assert not storage_exists(f"{prefix}{tmp_path / 'x'}")
    assert storage_exists("postgresql://h/d")
    assert list(tmp_path.iterdir()) == []
