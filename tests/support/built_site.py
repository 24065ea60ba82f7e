"""The site of docs/, built as `make docs` builds it, and what a page of it loads."""

import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOADING = {"script": "src", "img": "src", "iframe": "src", "link": "href"}


def build(folder: Path, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Builds the site of a checkout into a folder."""
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=root, env=os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(root)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


class Loads(HTMLParser):
    """The URLs that a page loads by itself, other than those that it links to."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        url = values.get(LOADING.get(tag, ""))
        if url and values.get("rel") not in ("canonical", "prev", "next"):
            self.urls.append(url)
