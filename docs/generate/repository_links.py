"""Links between files of the repository, as they are in the site.

In the repository a page lies at docs/PAGE.md, in the site at PAGE.md; what lies beside docs/ keeps
its path. So a link is right in both places if it is written for the repository.
"""

import posixpath
import re
from collections.abc import Container
from typing import Final

# What pages link to beside docs/, as patterns.
BESIDE_DOCS: Final = (
    "CHANGELOG.md", "CONTRIBUTING.md", "deploy/*.*", "deploy/Containerfile",
    "search_spaces/*.yaml",
)  # fmt: skip
LINK: Final = re.compile(r"(?<=\]\()(?!\w+:|#|/)([^)\s#]+)")
CODE: Final = re.compile(r"^```.*?^```|^    .*?$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
OUTSIDE: Final = ("CHANGELOG.md", "CONTRIBUTING.md", "deploy/", "search_spaces/")


def linked_within_site(markdown: str, page: str, made: Container[str]) -> str:
    """The page's Markdown with its links led to the site's places.

    Args:
        markdown: A page.
        page: Its path in the site.
        made: The site's paths of pages that are in no folder of the repository.
    """
    if page in made:
        return markdown

    def lead(link: re.Match[str]) -> str:
        home = posixpath.dirname(_in_repository(page))
        target = posixpath.normpath(posixpath.join(home, link[1]))
        return posixpath.relpath(_in_site(target), posixpath.dirname(page) or ".")

    parts, start = [], 0
    for code in CODE.finditer(markdown):
        parts += [LINK.sub(lead, markdown[start : code.start()]), code[0]]
        start = code.end()
    return "".join([*parts, LINK.sub(lead, markdown[start:])])


def _in_repository(path: str) -> str:
    return path if path.startswith(OUTSIDE) else f"docs/{path}"


def _in_site(path: str) -> str:
    return path.removeprefix("docs/")
