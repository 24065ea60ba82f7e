"""Tests of the command dashboard; tests/hpo/dashboard has what it serves."""

from pathlib import Path

from commands import Call, refused, write_run


def test_without_a_run_or_a_storage_there_is_nothing_to_show(call: Call) -> None:
    assert "nothing to show: name a run's folder, or a database (--storage)" in refused(
        call("dashboard")
    )


def test_a_storage_that_is_not_there_is_not_made(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "none.db"
    assert f"no file sqlite:///{file}" in refused(
        call("dashboard", "--storage", f"sqlite:///{file}")
    )
    assert not file.exists()


def test_an_address_of_elsewhere_is_refused(call: Call, search_file: Path, tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "own", search_file)
    said = refused(call("dashboard", run_dir, "--host", "192.0.2.1"))
    assert "cannot listen at 192.0.2.1:8080" in said
    assert "token" not in said
