"""Each message that docs/troubleshooting.md quotes is still one of the program."""

import ast
import re
from pathlib import Path

import pytest
from messages_page import VALUE, text_of

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"^\| `(.+?)` \|", PAGE, re.MULTILINE)


@pytest.fixture(scope="module")
def texts() -> str:
    """All texts of the sources, a line each."""
    files = [*ROOT.glob("hpo/**/*.py"), *ROOT.glob("sgformer/**/*.py")]
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text()))]
    kinds = (ast.Constant, ast.JoinedStr)
    return "\n".join(text_of(node).replace("\n", " ") for node in nodes if isinstance(node, kinds))


def test_the_page_quotes_messages() -> None:
    assert len(QUOTED) > 40
    assert len({*QUOTED}) == len(QUOTED)


@pytest.mark.parametrize("message", QUOTED)
def test_a_quoted_message_is_still_in_the_sources(message: str, texts: str) -> None:
    pattern = ".*".join(re.escape(part) for part in message.split(VALUE))
    assert re.search(pattern, texts), f"no such message any more: {message}"
