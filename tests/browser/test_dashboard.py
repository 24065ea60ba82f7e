"""The dashboard as a browser shows it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dashboards import Served, served
from pages import PHONE, Visitor, drawn_figures, too_wide
from playwright.sync_api import Page, expect
from studies import create_study

from hpo.config.loading import load_search_config
from hpo.dashboard.guard import Access
from hpo.run import Run
from hpo.study.study import SearchStudy

pytestmark = pytest.mark.browser

PAGES = ("", "/analytics", "/trials", "/trialTable", "/smartSelection", "/note")
TOKEN = "a token of 23 letters .."
REFUSED = "Failed to load resource: the server responded with a status of 401"
WRITING = {"EditIcon", "DeleteIcon", "AddBoxIcon", "DriveFileRenameOutlineIcon"}
OFFERS = """[...document.querySelectorAll('button')]
    .filter(one => one.checkVisibility())
    .map(one => one.querySelector('svg')?.dataset.testid ?? '')"""
CURVES = "#graph-intermediate-values"


@pytest.fixture
def live_study(search_file: Path, tmp_path: Path) -> SearchStudy:
    """Two trials that run, and one that is paused."""
    config, _ = load_search_config(search_file, ["scheduler={name: freeze_thaw}"], name="live")
    study = create_study(f"sqlite:///{tmp_path / 'study.db'}", config)
    study.metadata.search_config = config.model_dump(mode="json")
    for value in (0.5, 0.625, 0.75):
        study.report(study.ask().number, {1: value})
    study.pause(2, {"best_epoch": 1})
    study.metadata.line = [2]
    return study


@pytest.fixture
def live(live_study: SearchStudy) -> Iterator[Served]:
    page = f"/dashboard/studies/{live_study.id}"
    with served(live_study.storage, Access("127.0.0.1"), page=page) as one:
        yield one


@pytest.fixture
def remote(live_study: SearchStudy) -> Iterator[Served]:
    with served(live_study.storage, Access("0.0.0.0", TOKEN)) as one:
        yield one


def here(one: Served, path: str = "") -> str:
    return f"http://127.0.0.1:{one.port}{path}"


def data_of(page: Page, selector: str) -> list[dict[str, Any]]:
    """The traces of a figure, once it is drawn."""
    page.wait_for_selector(f"{selector} .main-svg")
    found: list[dict[str, Any]] = page.eval_on_selector(selector, "one => one.data")
    return found


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_every_page_opens_and_fits_into_its_window(
    visitor: Visitor, dashboard: Served, path: str, size: str
) -> None:
    sizes = {"size": PHONE} if size == "phone" else {}
    page = visitor.open(f"{dashboard.url}{path}", **sizes)
    expect(page.locator("main")).to_contain_text(
        {"/note": "What is searched", "/trials": "Trial 0"}.get(path, "val_top1")
    )
    assert too_wide(page) == 0
    assert all(figure["width"] > 100 for figure in drawn_figures(page))
    assert not WRITING & set(page.evaluate(OFFERS))  # it is read-only
    assert not page.get_by_text("Upload a New File").is_visible()


def test_the_list_of_studies_leads_to_the_study(
    visitor: Visitor, dashboard: Served, ended_run: Run
) -> None:
    page = visitor.open(here(dashboard, "/"))  # leads to the study's page
    page.get_by_title("Return to the top page").click()
    page.get_by_text(f"1. {ended_run.config.study.name}").click()
    expect(page.get_by_role("heading", name="History")).to_be_visible()


def test_figures_show_what_the_study_has(
    visitor: Visitor, dashboard: Served, ended_run: Run
) -> None:
    page = visitor.open(dashboard.url)
    curves = {
        int(trace["name"].split("#")[1].split()[0]): dict(zip(trace["x"], trace["y"], strict=True))
        for trace in data_of(page, CURVES)
    }
    assert curves == {t.number: t.curve for t in ended_run.trials if t.state != "FAIL"}
    complete = {t.number: t.value for t in ended_run.trials if t.state == "COMPLETE"}
    traces = [trace for one in drawn_figures(page) for trace in one["data"]]
    points = (dict(zip(t["x"], t["y"], strict=True)) for t in traces if t.get("x") and t.get("y"))
    assert any(complete.items() <= one.items() for one in points)


def test_a_trials_page_says_what_became_of_it_and_offers_its_files(
    visitor: Visitor, dashboard: Served, ended_run: Run
) -> None:
    stopped = next(t for t in ended_run.trials if t.state == "PRUNED")
    page = visitor.open(f"{dashboard.url}/trials?numbers={stopped.number}")
    expect(page.get_by_role("heading", name=f"Trial {stopped.number} (")).to_be_visible()
    said = str(stopped.attributes["end_reason"])
    expect(page.locator("strong").first).to_contain_text(said, ignore_case=True)
    with page.expect_download() as found:
        page.get_by_label("download artifact").first.click()
    assert found.value.path().read_text().startswith("epoch,val_top1\n1,")


def test_the_study_note_has_health_and_no_json(visitor: Visitor, dashboard: Served) -> None:
    page = visitor.open(f"{dashboard.url}/note")
    main = page.locator("main")
    for text in ("Health", "WARN", "What is searched", "optimizer.learning_rate"):
        expect(main).to_contain_text(text)
    assert "{" not in main.inner_text()
    page.goto(dashboard.url)
    attributes = page.locator(".MuiCard-root", has_text="Study User Attributes")
    expect(attributes).to_contain_text("60 train, 100 val, 20 test; 2 classes")
    assert "{" not in attributes.inner_text()


def test_the_list_offers_what_writes_to_who_may_edit_alone(
    visitor: Visitor, ended_run: Run, dashboard: Served
) -> None:
    page = visitor.open(here(dashboard, "/dashboard"))
    expect(page.get_by_role("button", name="Reload")).to_be_visible()
    assert not page.get_by_role("button", name="Create").is_visible()
    assert not page.get_by_label("delete study").is_visible()
    with served(ended_run.study.storage, Access("127.0.0.1", may_edit=True)) as editable:
        page = visitor.open(here(editable, "/dashboard"))
        expect(page.get_by_role("button", name="Create")).to_be_visible()
        expect(page.get_by_label("delete study")).to_be_visible()
        visitor.close()


def test_an_open_page_follows_the_search(
    live: Served, live_study: SearchStudy, visitor: Visitor
) -> None:
    page = visitor.open(f"{live.url}/trials?numbers=2")
    note = page.locator("strong").first
    expect(note).to_have_text("Paused at epoch 1, first in line")
    live_study.report(2, {2: 0.875})
    expect(note).to_have_text("Running, epoch 2 of 4")
    page.goto(live.url)
    expect(page.locator(CURVES)).to_contain_text("trial #2 (running)")
    traces = {trace["name"]: trace["y"] for trace in data_of(page, CURVES)}
    assert traces["trial #2 (running)"] == [0.75, 0.875]


def test_a_browser_enters_by_the_link_once_and_by_the_token(
    remote: Served, visitor: Visitor
) -> None:
    visitor.allowed = [REFUSED]
    assert remote.link is not None
    link = here(remote, remote.link.partition(f":{remote.port}")[2])
    page = visitor.open(here(remote, "/"))
    expect(page.get_by_text("a token is needed")).to_be_visible()
    page = visitor.open(link)
    expect(page.get_by_text("1. live")).to_be_visible()
    assert [one["httpOnly"] for one in page.context.cookies()] == [True]
    page = visitor.open(link)  # another browser, later
    page.get_by_label("Token").fill("a wrong one")
    page.get_by_role("button", name="Enter").click()
    expect(page.get_by_text("a token is needed")).to_be_visible()
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Enter").click()
    expect(page.get_by_text("1. live")).to_be_visible()


def test_by_night_pages_are_dark_and_figures_too(visitor: Visitor, dashboard: Served) -> None:
    page = visitor.open(dashboard.url, is_dark=True)
    data_of(page, CURVES)
    background = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
    assert max(page.evaluate(background)[:3]) < 60
    papers = page.evaluate(
        """[...document.querySelectorAll('.js-plotly-plot .main-svg:first-child')]
            .map(one => getComputedStyle(one).backgroundColor)"""
    )
    assert papers
    assert not {"rgb(255, 255, 255)", "white"} & set(papers)
