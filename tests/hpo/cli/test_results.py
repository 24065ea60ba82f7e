"""Tests of the commands that show a run."""

import json
from pathlib import Path

import pytest
from commands import Call, refused, write_run


def test_status_of_a_run_whose_study_is_gone_ends_with_2(
    call: Call, search_file: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "search.yaml").write_text(search_file.read_text())
    assert "is gone: no file" in refused(call("status", run_dir))
    assert sorted(path.name for path in run_dir.iterdir()) == ["search.yaml"]


def test_a_run_with_a_study_of_its_own_needs_no_database(
    call: Call, search_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = write_run(tmp_path / "own", search_file)
    monkeypatch.setenv("HPO_STORAGE", f"sqlite:///{tmp_path}/of-another-run.db")
    assert "of 4 started" in call("status", run_dir)[1]
    assert json.loads(call("status", run_dir, "--json")[1])["delivered_trial"] is None


def test_the_report_is_copied_to_the_runs_url(
    call: Call, search_file: Path, tmp_path: Path
) -> None:
    url = (tmp_path / "delivered").as_uri()
    run_dir = write_run(tmp_path / "own", search_file, f"study.deliver_to={url}")
    code, out, err = call("report", run_dir)
    assert code == 0, err
    assert f"{url}/own" in out
    copies = {path.name: path for path in (tmp_path / "delivered" / "own").iterdir()}
    assert sorted(copies) == ["leaderboard.csv", "report.html", "search.yaml"]
    assert copies["report.html"].read_text() == (run_dir / "report.html").read_text()
