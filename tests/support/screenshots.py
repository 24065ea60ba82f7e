"""Writes docs/images/*.png: pages of a small real search, as Chromium shows them.

    python tests/support/screenshots.py [RUN]     # default: the demo's, made if needed

`make screenshots` calls it. Look at the pictures before they are committed.
"""

import argparse
import io
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Locator, Page

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
IMAGES = ROOT / "docs" / "images"
MOST_BYTES = 200_000
COLOURS = 128
WINDOW = {"width": 1280, "height": 900}
FIGURE = "#graph-intermediate-values .main-svg"
OWN_FIGURE = '[id="user-defined-plot:hpo-curves"] .main-svg'


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "run", type=Path, nargs="?", default=Path("runs/digits")
    )  # relative: the report names it
    folder = parser.parse_args().run
    if not (folder / "report.html").is_file():
        from command_line import run

        run("demo", "--output-dir", folder.parent)
    take_pictures(folder)
    take_decisions()


def take_decisions() -> None:
    """Pictures of how a simulated search decides."""
    from decision_pictures import SIZE, write_pages
    from pages import Visitor, chromium, drawn_figures

    with tempfile.TemporaryDirectory() as pages, chromium() as browser:
        visitor = Visitor(browser)
        for name, path in write_pages(Path(pages)):
            page = visitor.open(path.as_uri(), {"width": SIZE["width"] + 16, "height": 600})
            drawn_figures(page)
            _take(page, name, to=page.locator(".js-plotly-plot").first)
        visitor.close()
    assert not visitor.faults, visitor.faults


def take_pictures(folder: Path) -> None:
    """Pictures of the study's page, a trial's page, and the report's top."""
    from dashboards import served
    from pages import Visitor, chromium, drawn_figures

    from hpo.dashboard.guard import Access
    from hpo.run import open_run

    run = open_run(folder)
    study = run.study
    shown: dict[str, Any] = {"page": f"/dashboard/studies/{study.id}"}
    number = run.trials[-1].number if run.winner is None else run.winner.number
    IMAGES.mkdir(exist_ok=True)
    with (
        served(
            study.storage, Access("127.0.0.1"), folders={study.id: run.folder}, **shown
        ) as dashboard,
        chromium() as browser,
    ):
        visitor = Visitor(browser)
        page = visitor.open(dashboard.url, WINDOW)
        page.wait_for_selector(FIGURE)
        page.wait_for_selector(OWN_FIGURE)
        _take(page, "dashboard", to=page.locator(".MuiCard-root", has=page.locator(OWN_FIGURE)))
        page = visitor.open(f"{dashboard.url}/trials?numbers={number}", WINDOW)
        page.get_by_role("heading", name=f"Trial {number} (").wait_for()
        _take(page, "trial")
        page = visitor.open(run.folder.report.resolve().as_uri(), WINDOW)
        drawn_figures(page)
        _take(page, "report", to=page.locator(".js-plotly-plot").first)
        visitor.close()
    assert not visitor.faults, visitor.faults


def _take(page: Page, name: str, to: Locator | None = None) -> None:
    """Writes the top of a page, to the end of an element, in few colours."""
    box = None if to is None else to.bounding_box()
    width = (page.viewport_size or WINDOW)["width"]
    height = WINDOW["height"] if box is None else round(box["y"] + box["height"]) + 8
    page.set_viewport_size({"width": width, "height": height})
    page.wait_for_timeout(3000)  # for the figures to take their places
    content = page.screenshot(clip={"x": 0, "y": 0, "width": width, "height": height})
    path = IMAGES / f"{name}.png"
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    size = path.stat().st_size
    print(f"{path}: {size / 1000:.0f} kB")
    assert size < MOST_BYTES, f"{path} has {size} bytes, at most {MOST_BYTES} are wanted"


if __name__ == "__main__":
    main()
