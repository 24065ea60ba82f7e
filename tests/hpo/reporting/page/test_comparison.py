"""The page that compares runs."""

import json
from pathlib import Path

import pytest
from commands import Call, refused
from reports import compare, embedded, make_study

from hpo.config.loading import load_search_config
from hpo.run_folder import RunFolder


@pytest.fixture
def runs(search_file: Path, tmp_path: Path) -> list[Path]:
    """Two runs: two trials and a comparison of finalists; one trial, not finished."""
    folders = []
    for name, states, rate in (("a", ["COMPLETE"] * 2, 0.5), ("b<i>", ["PRUNED"], 0.4)):
        folder = RunFolder(tmp_path / name)
        folder.make()
        set_high = f"space.model.drop_rate.high={rate}"
        config, _ = load_search_config(search_file, [set_high], name=name[0])
        folder.save_config(config)
        study = make_study(config, folder, states)
        if name == "a":
            compare(config, study, {1: [0.8, 0.82], 0: [0.5, 0.52]})
        folders.append(folder.path)
    return folders


def test_runs_are_shown_side_by_side(call: Call, runs: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "both.html"
    code, out, err = call("report", *runs, "--output", output)
    assert code == 0, err
    assert str(output) in out
    page = output.read_text()
    assert "<h1>a and b&lt;i&gt;</h1>" in page
    assert "<td>space.model.drop_rate.high</td><td>0.5</td><td>0.4</td>" in page
    assert "<td>study.seed</td>" not in page  # it is the same
    assert "<td>The winner</td><td>Trial 1: val_top1 0.8100 (" in page
    assert "None: no trial has run to its end yet." in page
    means = json.loads(embedded(output, "figure-means-0") or "")["data"][0]
    assert (means["y"], means["x"]) == (["a"], [pytest.approx(0.81)])
    assert {path.name for path in runs[0].iterdir()} <= {
        "search.yaml", "study.db", "study.db-wal", "study.db-shm",
    }  # fmt: skip


def test_the_page_is_written_where_one_stands(
    call: Call, runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert call("report", *runs)[0] == 0
    assert (tmp_path / "here" / "report-comparison.html").is_file()


def test_what_cannot_be_compared_is_refused(call: Call, runs: list[Path], tmp_path: Path) -> None:
    assert "a is given twice" in refused(call("report", runs[0], runs[0]))
    missing = tmp_path / "missing" / "page.html"
    assert f"cannot write {missing}" in refused(call("report", *runs, "--output", missing))
    assert "got page.html and one run" in refused(call("report", runs[0], "--output", "page.html"))
