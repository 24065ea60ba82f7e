import contextlib
import itertools
import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from commands import Call, write_run
from mounts import pretend_mounted, served_by_fuse

from hpo.config.schema import SearchConfig, StudyConfig
from hpo.errors import StudyError
from hpo.run_folder import RunFolder
from hpo.study import storage
from hpo.study.driver import driver_record
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


def test_a_new_sqlite_file_on_a_network_is_refused_with_the_choices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_mounted(monkeypatch, tmp_path, shared="nfs4", other="ext4")
    url = f"sqlite:///{tmp_path}/shared/team.db"
    with pytest.raises(StudyError, match=r"SQLite on a network's file system \(nfs4\)") as caught:
        check_storage_url(url)
    assert f"journal:{tmp_path}/shared/team.journal" in str(caught.value)
    assert "postgresql+psycopg://" in str(caught.value)
    check_storage_url(f"sqlite:///{tmp_path}/other/team.db")
    check_storage_url(f"journal:{tmp_path}/shared/team.journal")


LEAVE_A_LOG = (
    "import os, sys, optuna\n"
    "from hpo.study.storage import open_storage\n"
    "storage = open_storage(sys.argv[1])\n"
    "optuna.create_study(storage=storage, study_name='a').set_user_attr('kept', 1)\n"
    "os._exit(0)\n"
)


def test_an_earlier_sqlite_file_on_a_network_is_opened_whole_without_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "shared" / "study.db"
    file.parent.mkdir()
    url = f"sqlite:///{file}"
    subprocess.run([sys.executable, "-c", LEAVE_A_LOG, url], check=True)
    log = file.with_name("study.db-wal")
    assert log.stat().st_size > 0
    pretend_mounted(monkeypatch, tmp_path, shared="nfs4")
    study = optuna.load_study(storage=open_storage(url), study_name="a")
    assert study.user_attrs == {"kept": 1}
    study.set_user_attr("more", 2)
    assert not log.exists()
    with contextlib.closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    again = optuna.load_study(storage=open_storage(url), study_name="a")
    assert again.user_attrs == {"kept": 1, "more": 2}


def test_a_sqlite_file_whose_log_another_process_uses_is_refused_on_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "shared" / "study.db"
    file.parent.mkdir()
    other = open_storage(f"sqlite:///{file}")
    optuna.create_study(storage=other, study_name="a")
    assert other.get_all_studies()
    monkeypatch.setattr(storage, "SECONDS_TO_WAIT", 0.1)
    pretend_mounted(monkeypatch, tmp_path, shared="nfs4")
    with pytest.raises(StudyError, match=r"cannot use storage sqlite.*: database is locked"):
        open_storage(f"sqlite:///{file}")


@pytest.mark.parametrize("name", ["journal", "journal.driver"])
def test_a_lock_of_a_journal_that_a_dead_node_left_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    opened = open_storage(f"journal:{tmp_path / 'journal'}")
    study_id = opened.create_new_study([optuna.study.StudyDirection.MAXIMIZE], "a")
    record = driver_record(opened, study_id)
    (tmp_path / f"{name}.lock").touch()
    # Optuna waits for thirty seconds without a change of the lock.
    passed = itertools.count(0, 20)
    clock = SimpleNamespace(monotonic=lambda: next(passed), sleep=lambda _seconds: None)
    monkeypatch.setattr("optuna.storages.journal._file.time", clock)
    record.update(lambda _values: {"token": "t"})
    assert record.read() == {"token": "t"}
    assert not (tmp_path / f"{name}.lock").exists()


def test_a_run_on_fuse_is_read_by_the_commands(
    call: Call, search_file: Path, tmp_path: Path
) -> None:
    with served_by_fuse(tmp_path / "shared") as shared:
        run = write_run(shared / "a", search_file)
        assert (run / "study.journal").is_file()
        assert not (run / "study.db").exists()
        code, out, err = call("status", run, "--json")
        assert (code, json.loads(out)["num_trials"]) == (0, 4), err
        assert call("report", run)[0] == 0
    # Another node may have the folder elsewhere, on a file system of another kind.
    assert call("status", tmp_path / "shared-source" / "a")[0] == 0
