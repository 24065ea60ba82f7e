"""What pages are told of a study, over a socket."""

import csv
import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from commands import write_run
from dashboards import Served, served
from studies import create_study

from hpo.config.loading import load_search_config
from hpo.config.schema import SearchConfig
from hpo.dashboard import details
from hpo.dashboard.figures import StudyFigures
from hpo.dashboard.guard import Access
from hpo.dashboard.page import PageScript
from hpo.run_folder import RunFolder
from hpo.study.study import SearchStudy

EDITS = Access("127.0.0.1", may_edit=True)


@pytest.fixture(autouse=True)
def _read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures, which come at their own time, are left to test_figures.py."""
    monkeypatch.setattr(details, "SECONDS_BETWEEN_READS", 0.0)
    monkeypatch.setattr(StudyFigures, "latest", lambda *_, **__: {})


@pytest.fixture
def config(search_file: Path) -> SearchConfig:
    overrides = ["scheduler={name: freeze_thaw}", "study.name=one"]
    return load_search_config(search_file, overrides)[0]


@pytest.fixture
def study(config: SearchConfig, storage_url: str) -> Iterator[SearchStudy]:
    study = create_study(storage_url, config)
    study.metadata.search_config = config.model_dump(mode="json")
    study.metadata.images = {"classes": ["a"], "train": 60, "val": 100, "test": 20}
    for value in (0.5, 0.625, 0.75):
        study.report(study.ask().number, {1: value})
    yield study
    optuna.delete_study(study_name="one", storage=study.storage)


@pytest.fixture
def dashboard(study: SearchStudy) -> Iterator[Served]:
    with served(study.storage, EDITS, page=f"/dashboard/studies/{study.id}") as one:
        yield one


def changes(dashboard: Served, study: SearchStudy, since: str = "") -> dict[str, Any]:
    answer = dashboard.ask(f"/api/studies/{study.id}?since={since}")
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.json
    return found


def numbers(told: dict[str, Any]) -> list[int]:
    return [trial["number"] for trial in told["trials"]]


def test_a_page_is_told_all_once_and_then_what_changes(
    dashboard: Served, study: SearchStudy
) -> None:
    first = changes(dashboard, study)
    assert (numbers(first), first["is_whole"]) == ([0, 1, 2], True)
    nothing = changes(dashboard, study, first["version"])
    assert (numbers(nothing), nothing["is_whole"]) == ([], False)
    assert nothing["version"] == first["version"]
    study.report(1, {2: 0.875})
    study.ask()
    later = changes(dashboard, study, first["version"])
    assert numbers(later) == [1, 3]
    assert later["trials"][0]["intermediate_values"][-1] == {"step": 2, "value": 0.875}
    assert numbers(changes(dashboard, study, later["version"])) == []
    # A page that slept is told all that has changed since it last asked.
    study.finish(0, "COMPLETE", {"end_reason": "completed", "best_value": 0.5}, 0.5)
    assert numbers(changes(dashboard, study, first["version"])) == [0, 1, 3]
    assert changes(dashboard, study, later["version"])["best_trials"] == [0]


@pytest.mark.parametrize("since", ["deadbeef-3", "-", "x", "%00", "deadbeef-"])
def test_a_version_of_another_server_gets_all(
    dashboard: Served, study: SearchStudy, since: str
) -> None:
    told = changes(dashboard, study, since)
    assert (numbers(told), told["is_whole"]) == ([0, 1, 2], True)


def test_a_paused_trial_is_shown_as_paused_with_its_place_in_line(
    dashboard: Served, study: SearchStudy
) -> None:
    version = changes(dashboard, study)["version"]
    study.pause(1, {"best_epoch": 1})
    study.pause(2, {"best_epoch": 1})
    study.metadata.line = [2, 1]
    told = changes(dashboard, study, version)
    assert [trial["state"] for trial in told["trials"]] == ["Paused", "Paused"]
    words = {"key": "status", "value": "paused at epoch 1, second in line"}
    assert words in told["trials"][0]["user_attrs"]
    assert "paused at epoch 1, second in line" in told["trials"][0]["note"]["body"].lower()
    assert "2 trials; first in line: 2, 1" in told["note"]["body"]
    assert numbers(changes(dashboard, study, told["version"])) == []
    study.report(1, {2: 0.875})  # it was resumed
    study.metadata.line = [2]
    later = changes(dashboard, study, told["version"])
    states = {trial["number"]: trial["state"] for trial in later["trials"]}
    assert states[1] == "Running"
    assert states.get(2, "Paused") == "Paused"


def test_what_has_not_changed_is_not_sent_again(dashboard: Served, study: SearchStudy) -> None:
    path = f"/api/studies/{study.id}?since="
    first = dashboard.ask(path, Accept_Encoding="gzip")
    assert json.loads(gzip.decompress(first.body)) == dashboard.ask(path).json
    assert first.headers["cache-control"] == "private, no-cache"
    again = dashboard.ask(path, If_None_Match=first.headers["etag"])
    assert (again.status, again.body) == (304, b"")
    study.report(0, {2: 0.5})
    assert dashboard.ask(path, If_None_Match=first.headers["etag"]).status == 200


def test_the_page_lists_no_json_of_programs(dashboard: Served, study: SearchStudy) -> None:
    study.finish(0, "PRUNED", {"end_reason": "diverged", "config": {"a": {"b": 1}}})
    whole = dashboard.ask(f"/api/studies/{study.id}").json
    listed = [one for trial in whole["trials"] for one in trial["user_attrs"]]
    images = {"key": "images", "value": "60 train, 100 val, 20 test; 1 classes"}
    assert images in whole["user_attrs"]
    assert not [one for one in [*listed, *whole["user_attrs"]] if "{" in one["value"]]
    summaries = dashboard.ask("/api/studies").json["study_summaries"]
    assert [one["user_attrs"] for one in summaries if one["study_name"] == "one"] == [[]]


def test_the_api_answers_as_optuna_dashboard_does(dashboard: Served, study: SearchStudy) -> None:
    study.finish(1, "COMPLETE", {"end_reason": "completed", "best_value": 0.75}, 0.75)
    whole = dashboard.ask(f"/api/studies/{study.id}?after=1").json
    assert numbers(whole) == [1, 2]
    assert [trial["number"] for trial in whole["best_trials"]] == [1]
    assert whole["objective_names"] == ["val_top1"]
    assert whole["trials"][0]["params"][0]["distribution"]["type"] == "FloatDistribution"
    names = {one["name"] for one in whole["union_search_space"]}
    assert names == {param["name"] for param in whole["trials"][0]["params"]}
    assert dashboard.ask(f"/api/studies/{study.id}?after=-1").status == 400
    assert dashboard.ask("/api/studies/99999?since=").status == 404


def test_the_study_note_says_what_is_searched_and_how_far_it_is(
    dashboard: Served, study: SearchStudy
) -> None:
    note = changes(dashboard, study)["note"]["body"]
    assert "## one: largest val_top1" in note
    assert "**No search runs on this study now.**" in note
    assert "- trials: 3 of 4 started: 3 running" in note
    assert "trial 2, val\\_top1 0.7500 ± 0.0854 (95 %, by its 100 val images alone)" in note
    assert "the best of 3 single trainings, so rather too good" in note
    assert "- interrupted: trials 0 (epoch 1), 1 (epoch 1), 2 (epoch 1)" in note
    assert "model.drop\\_rate" in note
    assert "`--resume`" in note


def test_a_note_of_the_user_takes_the_place_of_ours(dashboard: Served, study: SearchStudy) -> None:
    first = changes(dashboard, study)
    sent = json.dumps({"version": 1, "body": "mine"}).encode()
    trial_id = first["trials"][1]["trial_id"]
    for path in (f"/api/studies/{study.id}/note", f"/api/studies/{study.id}/{trial_id}/note"):
        assert dashboard.ask(path, "PUT", sent, Content_Type="application/json").status == 204
    later = changes(dashboard, study, first["version"])
    assert later["note"] == {"version": 1, "body": "mine"}
    assert [trial["note"]["body"] for trial in later["trials"]] == ["mine"]


def test_a_study_of_another_program_is_shown_as_it_is(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'other.db'}"
    other = optuna.create_study(storage=url, study_name="other", directions=["minimize"] * 2)
    other.set_user_attr("a", {"b": 1})
    trial = other.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
    trial.set_user_attr("c", [1])
    other.tell(trial, [0.5, 0.25])
    with served(other._storage, EDITS) as one:
        told = one.ask("/api/studies/1?since=").json
    assert told["user_attrs"] == [{"key": "a", "value": '{"b": 1}'}]
    assert told["trials"][0]["user_attrs"] == [{"key": "c", "value": "[1]"}]
    assert told["trials"][0]["state"] == "Complete"
    assert told["trials"][0]["note"] == told["note"] == {"version": 0, "body": ""}
    assert told["best_trials"] == [0]


def test_files_of_the_run_are_offered_where_they_lie(tmp_path: Path, search_file: Path) -> None:
    folder = RunFolder(write_run(tmp_path / "run", search_file))
    config = folder.load_config()
    folder.report.write_text("<script>1</script>")
    curve = folder.trials / "0" / "epochs.csv"
    curve.parent.mkdir(parents=True)
    curve.write_text("epoch,val_top1\n1,0.5\n")
    (curve.parent / "last.safetensors").write_bytes(b"0")
    study = SearchStudy.open(folder.storage_url(config), config.study, config.space)
    study.metadata.search_config = config.model_dump(mode="json")
    with served(study.storage, Access("127.0.0.1"), folders={study.id: folder}) as one:
        told = one.ask(f"/api/studies/{study.id}?since=").json
        files = {file["filename"]: file["artifact_id"] for file in told["artifacts"]}
        assert sorted(files) == ["report.html", "search.yaml"]
        report = one.ask(f"/artifacts/{study.id}/{files['report.html']}")
        assert report.body == b"<script>1</script>"
        assert report.headers["content-security-policy"].startswith("sandbox allow-scripts")
        trial = told["trials"][0]
        assert [file["filename"] for file in trial["artifacts"]] == ["epochs.csv"]
        path = f"/artifacts/{study.id}/{trial['trial_id']}/{trial['artifacts'][0]['artifact_id']}"
        rows = list(csv.DictReader(io.StringIO(one.ask(path).body.decode())))
        assert rows == [{"epoch": "1", "val_top1": "0.5"}]
        assert one.ask(path, "HEAD").body == b""
        curve.unlink()
        assert (one.ask(path).status, b"no longer there" in one.ask(path).body) == (404, True)
        assert one.ask(f"/artifacts/{study.id}/0123").status == 400
        assert one.ask("/api/meta").json["artifact_is_available"]


def test_the_script_of_the_installed_page_can_be_told_of_paused_trials() -> None:
    script = PageScript()
    assert script.knows_paused
    content = gzip.decompress(script.compressed).decode()
    assert '["Running","Waiting","Paused"].includes(e.state)' in content
    assert content.count("fewCurves(") == 2
