"""What mkdocs calls while it builds the site: pages made of the sources, and links beyond docs/.

Nothing that is made here is written into the checkout, so no page of the reference can be older
than the sources.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from commands_page import commands_page
from messages_page import messages_page
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from repository_links import BESIDE_DOCS, linked_within_site
from settings_page import settings_page

ROOT: Final = Path(__file__).parents[2]
MADE: Final[dict[str, Callable[[], str]]] = {
    "reference/settings.md": settings_page,
    "reference/commands.md": commands_page,
    "reference/messages.md": messages_page,
}


def on_startup(**_: object) -> None:
    """Silences what libraries log at import, which --strict would count as warnings."""
    logging.getLogger("mkdocs.plugins").setLevel(logging.WARNING)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made of the sources, and files that lie beside docs/."""
    for path, make in MADE.items():
        files.append(File.generated(config, path, content=make()))
    for path in BESIDE_DOCS:
        for file in sorted(ROOT.glob(path)):
            name = file.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, content=file.read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leads links to files of the repository to their place in the site."""
    del config, files
    return linked_within_site(markdown, page.file.src_uri, MADE)
