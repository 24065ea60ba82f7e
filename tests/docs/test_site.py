"""Tests of the site as a whole: it builds without a warning, and opens as files."""

import getpass
import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from built_site import ROOT, Loads, build

if TYPE_CHECKING:
    from pages import Visitor


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_of_docs_is_in_the_site(site: Path) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        path = page.relative_to(ROOT / "docs").with_suffix(".html")
        assert (site / path).is_file()


def test_pages_that_are_made_of_the_sources_are_in_the_site(site: Path) -> None:
    for name in ("settings", "commands", "messages", "python"):
        assert len((site / "reference" / f"{name}.html").read_text(encoding="utf-8")) > 50_000


def test_files_beside_docs_are_in_the_site(site: Path) -> None:
    for path in (
        "CHANGELOG.html",
        "deploy/index.html",
        "deploy/slurm.sh",
        "search_spaces/core.yaml",
    ):
        assert (site / path).is_file()
    assert not (site / "generate").exists()


def test_a_page_loads_only_files_of_the_site(site: Path) -> None:
    for page in site.rglob("*.html"):
        if page.name != "404.html":  # which a server alone shows, from its root
            for url in Loads(page).urls:
                assert "//" not in url, (page, url)
                assert (page.parent / url.partition("?")[0].partition("#")[0]).exists(), (
                    page,
                    url,
                )


def test_nothing_in_the_site_tells_of_the_machine(site: Path) -> None:
    for page in [*site.rglob("*.html"), *site.rglob("*.js")]:
        text = page.read_text(encoding="utf-8")
        assert str(ROOT) not in text, page
        assert f"{getpass.getuser()}@{socket.gethostname()}" not in text, page


def test_a_broken_link_and_a_lost_heading_are_refused(tmp_path: Path) -> None:
    for name in ("docs", "hpo", "sgformer", "deploy", "search_spaces"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("mkdocs.yml", "CHANGELOG.md", "CONTRIBUTING.md"):
        shutil.copy(ROOT / name, tmp_path)
    page = tmp_path / "docs" / "terminal.md"
    page.write_text(f"{page.read_text()}\n[a](no-page.md) [b](training.md#no-heading)\n")
    done = build(tmp_path / "site", tmp_path)
    assert done.returncode == 1
    assert "no-page.md" in done.stderr
    assert "no-heading" in done.stderr


@pytest.mark.browser
@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("max_top1_drop", "reference/settings"),
        ('"another process is working on"', "reference/messages"),
    ],
)
def test_a_search_in_files_finds_settings_and_messages(
    site: Path, visitor: "Visitor", words: str, found: str
) -> None:
    page = visitor.open((site / "index.html").as_uri())
    page.locator(".md-search__input").fill(words)
    links = page.locator(f".md-search-result__link[href*='{found}']")
    links.first.wait_for(state="attached")  # it may be folded into "more on this page"


@pytest.mark.browser
@pytest.mark.parametrize(
    "name", ["index", "tutorial", "troubleshooting", "search-file", "design", "performance",
             "reference/settings", "reference/messages", "reference/python"],
)  # fmt: skip
def test_no_page_is_wider_than_a_phone(site: Path, visitor: "Visitor", name: str) -> None:
    from pages import PHONE, too_wide

    page = visitor.open((site / f"{name}.html").as_uri(), PHONE)
    assert too_wide(page) == 0
