"""report.html as a browser shows it, from a folder and without a network."""

import pytest
from pages import DESKTOP, PHONE, Visitor, drawn_figures, too_wide

from hpo.run import Run

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("is_dark", [False, True])
@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_the_report_opens_with_every_figure_drawn_and_asks_for_nothing(
    visitor: Visitor, ended_run: Run, size: dict[str, int], *, is_dark: bool
) -> None:
    url = ended_run.folder.report.as_uri()
    page = visitor.open(url, size, is_dark=is_dark)
    figures = drawn_figures(page)
    assert len(figures) >= 3
    assert all(figure["data"] for figure in figures)
    assert [one for one in visitor.requests if one.partition("#")[0] != url] == []
    assert too_wide(page) == 0
    assert ended_run.config.study.name in page.inner_text("h1")
