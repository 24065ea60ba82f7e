"""The figures of a study for its page."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dashboards import Served, served
from made_searches import MAX_EPOCHS, config_of, curve_of
from studies import create_study

from hpo.config.loading import load_search_config
from hpo.config.schema import SearchConfig
from hpo.dashboard import details, figures
from hpo.dashboard.figures import study_figures
from hpo.dashboard.guard import Access
from hpo.dashboard.study_note import SearchState
from hpo.reporting.page.parts import as_json
from hpo.run_folder import RunFolder
from hpo.simulation.simulation import SimulatedSearch
from hpo.study.study import SearchStudy

Figures = dict[str, dict[str, Any]]


@pytest.fixture
def config(search_file: Path) -> SearchConfig:
    return config_of(search_file)


@pytest.fixture
def study(config: SearchConfig, tmp_path: Path) -> SearchStudy:
    """A simulated search that has ended, and two trials of a later one: one paused, one runs."""
    study = create_study(f"sqlite:///{tmp_path / 'study.db'}", config)
    study.metadata.search_config = config.model_dump(mode="json")
    SimulatedSearch(config, curve_of, 1, study).run()
    for _ in range(2):
        number = study.ask().number
        study.report(number, {1: 0.25, 2: 0.375})
    study.pause(number, {"best_epoch": 2, "seconds": 4.0, "num_epochs_trained": 2})
    study.metadata.line = [number]
    return study


def figures_of(
    study: SearchStudy, config: SearchConfig, folder: RunFolder | None = None
) -> Figures:
    state = SearchState(config, study, study.trials(), study.metadata.line, folder)
    return {name: json.loads(as_json(one)) for name, one in study_figures(state)}


def traces(figure: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one.get("name", ""): one for one in figure["data"]}


def test_curves_are_the_studys_with_forecasts_of_what_may_go_on(
    study: SearchStudy, config: SearchConfig
) -> None:
    found = figures_of(study, config)
    assert set(found) == {"curves", "cost"}
    shown = traces(found["curves"])
    paused = study.trials()[-1]
    assert shown["paused"]["x"][:2] == [1, 2]
    assert shown["paused"]["y"][:2] == [0.25, 0.375]
    forecast = shown[f"forecast of {paused.number}"]
    assert forecast["x"] == [*range(2, MAX_EPOCHS + 1)]
    assert f"forecast of {paused.number - 1}" in shown  # it runs
    assert len(found["curves"]["layout"]["shapes"]) >= 1  # rungs


def test_the_best_value_is_shown_by_what_was_spent(
    study: SearchStudy, config: SearchConfig
) -> None:
    cost = figures_of(study, config)["cost"]
    (line,) = cost["data"]
    best = max(v for t in study.trials() for v in t.curve.values())
    assert line["y"][-1] == pytest.approx(best, rel=1e-5)
    assert line["y"] == sorted(line["y"])
    assert (
        cost["layout"]["xaxis"]["title"]["text"]
        == "seconds of training on CPUs, all slots together"
    )


def test_slots_are_shown_where_the_run_folder_tells(
    study: SearchStudy, config: SearchConfig, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path)
    for number in (0, 1):
        path = folder.trials / str(number) / "attempts.csv"
        path.parent.mkdir(parents=True)
        path.write_text(
            f"started_at,hostname,pid,epoch\n2026-11-30T07:35:0{number}+00:00,vm,{number},1\n"
        )
    slots = figures_of(study, config, folder)["slots"]
    assert {text for one in slots["data"] for text in one["text"]} == {"0", "1"}


def test_several_objectives_have_a_front(search_file: Path, tmp_path: Path) -> None:
    overrides = ["study.objectives=[[val_top1, maximize], [num_parameters, minimize]]"]
    config, _ = load_search_config(
        search_file, [*overrides, "scheduler={name: none}", "study.sampler=random"]
    )
    study = create_study(f"sqlite:///{tmp_path / 'several.db'}", config)
    for value, size in ((0.5, 9), (0.75, 7), (0.625, 5)):
        number = study.ask().number
        study.report(number, {1: value})
        attributes = {"end_reason": "completed", "best_value": value, "num_parameters": size}
        study.finish(number, "COMPLETE", attributes, value)
    front = traces(figures_of(study, config)["front-num_parameters"])["Pareto front"]
    assert (front["x"], front["y"]) == ([5, 7], [0.625, 0.75])


def test_figures_are_few_and_small(study: SearchStudy, config: SearchConfig) -> None:
    assert sum(len(as_json(one)) for one in figures_of(study, config).values()) < 60_000


def told(dashboard: Served, since: str = "") -> dict[str, Any]:
    found: dict[str, Any] = dashboard.ask(f"/api/studies/1?since={since}").json
    return found


def wait_for(found: Callable[[], dict[str, Any]], name: str) -> dict[str, Any]:
    """An answer that has figures of this name."""
    while True:
        answer = found()
        if name in {one["id"] for one in answer.get("plotly_graph_objects", ())}:
            return answer
        time.sleep(0.1)


def test_a_page_is_told_of_figures_when_they_are_new(
    study: SearchStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(details, "SECONDS_BETWEEN_READS", 0.0)
    with served(study.storage, Access("127.0.0.1")) as dashboard:
        answer = wait_for(lambda: told(dashboard), "hpo-curves")
        assert "plotly_graph_objects" not in told(dashboard, answer["version"])
        study.report(study.trials()[-1].number, {3: 0.5})
        later = told(dashboard, answer["version"])
        assert (len(later["trials"]), later.get("plotly_graph_objects")) == (1, None)
        monkeypatch.setattr(figures, "SECONDS_BETWEEN_FIGURES", 0.0)
    with served(study.storage, Access("127.0.0.1")) as dashboard:
        first = wait_for(lambda: told(dashboard), "hpo-curves")
        study.report(study.trials()[-1].number, {4: 0.625})
        newer = wait_for(lambda: told(dashboard, first["version"]), "hpo-curves")
    shown = {one["id"]: one["graph_object"] for one in newer["plotly_graph_objects"]}
    assert "0.625" in shown["hpo-curves"]
