"""The page of all messages of errors, read from the sources, so that a search finds each.

A message is the text of a `raise`; where the program fills in a value, the page has `…`.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import hpo.errors
import sgformer.errors
from sgformer.validation import SettingError

ROOT: Final = Path(__file__).parents[2]
VALUE: Final = "…"
HEAD: Final = """\
# Every message

This page is made of the sources: it has each message that they raise as an error, and where.
`…` stands for what the program fills in: a path, a name, a value. A message itself says what is
wrong, what is allowed and where to change it; those that need more words are in
[When something goes wrong](../troubleshooting.md). Exit code 2: the input is wrong; 1: the run
failed.

"""
KINDS: Final = {
    name: kind
    for module in (hpo.errors, sgformer.errors)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and issubclass(kind, Exception)
}
# In a model of settings pydantic turns them into messages about the search file.
OF_SETTINGS: Final = {"ValueError": ValueError, "SettingError": SettingError}
TITLES: Final = {
    "hpo/cli": "Commands", "hpo/config": "The search file", "hpo/study": "The study",
    "hpo/execution": "Ray and the trainings", "hpo/delivery": "Delivery", "hpo/serving": "Serving",
    "hpo/dashboard": "The dashboard", "sgformer/data": "Images", "sgformer/sources": "Data sets",
    "sgformer/images": "Image files", "sgformer/model": "Models and weights",
    "sgformer/training": "Training", "sgformer/export": "Exported files",
}  # fmt: skip


def messages_page() -> str:
    """The page in Markdown: a table of messages for each package."""
    rows: dict[str, list[str]] = {}
    for path in sorted([*ROOT.glob("hpo/**/*.py"), *ROOT.glob("sgformer/**/*.py")]):
        package = path.parent.relative_to(ROOT).as_posix()
        rows.setdefault(package, []).extend(
            f"| {_cell(text)} | {exit_code} | `{path.name}` |"
            for text, exit_code in messages_of(path)
        )
    packages = [*TITLES, *(package for package in rows if package not in TITLES)]
    tables = [_table(package, rows[package]) for package in packages if rows.get(package)]
    return HEAD + "\n".join(tables)


def _table(package: str, rows: list[str]) -> str:
    title = f"{TITLES[package]} ({package}/)" if package in TITLES else f"{package}/"
    head = ["| message | exit code | raised in |", "|---|---|---|"]
    return "\n".join([f"## {title}\n", *head, *dict.fromkeys(rows)]) + "\n"


def messages_of(path: Path) -> Iterator[tuple[str, int]]:
    """Pairs of a message that a source file raises and the exit code that follows."""
    source = path.read_text(encoding="utf-8")
    known = KINDS | (OF_SETTINGS if "FrozenConfig)" in source else {})
    raised = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Raise))
    for node in sorted(raised, key=lambda node: node.lineno):
        if isinstance(node.exc, ast.Call) and node.exc.args:
            kind = known.get(ast.unparse(node.exc.func).rpartition(".")[2])
            text = text_of(node.exc.args[-1])
            if kind is not None and re.search("[a-z]", text):
                yield text, 2 if issubclass(kind, ValueError) else 1


def text_of(node: ast.expr) -> str:
    """The text of an expression, with `…` for what is known only when the program runs."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(text_of, node.values))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return text_of(node.left) + text_of(node.right)
    return VALUE


def _cell(text: str) -> str:
    """A text as a cell of a table, in which nothing is markup."""
    for sign in "\\`*_[]<>#|{}~":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())
