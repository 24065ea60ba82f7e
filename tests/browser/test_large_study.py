"""The dashboard of many trials, which benchmarks/dashboard.py writes."""

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from dashboards import Served, served
from pages import Visitor, drawn_figures, too_wide
from playwright.sync_api import expect

from hpo.dashboard.guard import Access
from hpo.run import open_run

pytestmark = pytest.mark.browser

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NUM_PAUSED = 6
ROWS = "table tbody tr"


@pytest.fixture(
    scope="module",
    params=[600, pytest.param(10_000, marks=pytest.mark.slow)],
)
def num_trials(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    return number


@pytest.fixture(scope="module")
def large(num_trials: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
        write_study = import_module("dashboard").write_study
    run = open_run(write_study(tmp_path_factory.mktemp("large") / "run", num_trials, NUM_PAUSED))
    study = run.study
    page = f"/dashboard/studies/{study.id}"
    folders = {study.id: run.folder}
    with served(study.storage, Access("127.0.0.1"), page=page, folders=folders) as one:
        yield one


def test_a_study_of_many_trials_is_shown(visitor: Visitor, large: Served) -> None:
    page = visitor.open(large.url)
    page.wait_for_selector("#graph-intermediate-values .main-svg")
    figures = {one["id"]: one["data"] for one in drawn_figures(page)}
    assert 100 < len(figures["graph-intermediate-values"]) <= 300
    assert too_wide(page) == 0
    asked = [url for url in visitor.requests if "/api/studies/" in url and "since=" in url]
    assert len([url for url in asked if url.endswith("since=")]) == 1


def test_trials_are_filtered_by_their_state(
    visitor: Visitor, large: Served, num_trials: int
) -> None:
    page = visitor.open(f"{large.url}/trials")
    expect(page.get_by_text(f"{num_trials} Trials")).to_be_visible()
    page.get_by_label("Filter").click()
    for state in ("Complete", "Pruned", "Running"):
        page.get_by_role("menuitem", name=state).click()
    page.keyboard.press("Escape")
    expect(page.get_by_text(f"{NUM_PAUSED} Trials")).to_be_visible()


def test_the_table_sorts(visitor: Visitor, large: Served, num_trials: int) -> None:
    page = visitor.open(f"{large.url}/trialTable")
    rows = page.locator(ROWS)
    expect(rows.first).to_be_visible()
    numbers = rows.locator("td:first-child")
    expect(numbers.first).to_have_text("0")
    page.locator("table thead [role=button]").first.click()
    expect(numbers.first).to_have_text(str(num_trials - 1))
    shown = [int(text) for text in numbers.all_inner_texts()]
    assert shown == sorted(shown, reverse=True)
