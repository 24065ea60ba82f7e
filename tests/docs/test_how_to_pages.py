"""The commands of the pages are such that the program takes them, with settings that there are."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from hpo.cli.app import app
from hpo.config.loading import load_search_config

ROOT = Path(__file__).parents[2]
PAGES = [*sorted((ROOT / "docs" / "how-to").glob("*.md")), ROOT / "docs" / "index.md"]
PROGRAM = ".venv/bin/python run_search.py "
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINES = [
    (page.stem, line)
    for page in PAGES
    for block in BLOCK.findall(page.read_text(encoding="utf-8"))
    for line in block.splitlines()
]
COMMANDS = [line.removeprefix(PROGRAM) for _, line in LINES if line.startswith(PROGRAM)]


def parsed(line: str) -> dict[str, Any]:
    """The arguments and options of a command, by name, as the command line reads them."""
    name, *arguments = shlex.split(line, comments=True)
    command = get_command(app).commands[name]  # type: ignore[attr-defined]
    params: dict[str, Any] = command.make_context(name, arguments).params
    return params


def test_every_how_to_page_has_commands() -> None:
    with_commands = {page for page, _ in LINES}
    assert {page.stem for page in PAGES} == with_commands | {"index"}
    assert len(COMMANDS) > 20


@pytest.mark.parametrize("line", COMMANDS)
def test_the_program_takes_a_command_and_its_settings(line: str) -> None:
    params = parsed(line)
    file = params.get("search_file") or params.get("into")
    if "override" in params and file is not None:  # `extend` makes its own search file
        config, _ = load_search_config(ROOT / file, params["override"] or ())
        assert config.study.num_trials > 0


def test_files_of_the_other_commands_are_there() -> None:
    others = " ".join(line for _, line in LINES if not line.startswith(PROGRAM))
    files = re.findall(r"(?<!port-forward )deploy/[\w.-]+", others)
    assert len({*files}) == 5
    assert [file for file in files if not (ROOT / file).is_file()] == []
