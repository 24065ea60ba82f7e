"""Tests of the page of all commands."""

from collections.abc import Iterator
from typing import Any

from commands_page import commands_page
from typer.main import get_command

from hpo.cli.app import app


def commands(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    for one, child in getattr(command, "commands", {}).items():
        path = f"{name} {one}".strip()
        yield path, child
        yield from commands(child, path)


def test_every_command_has_a_section_with_all_its_options() -> None:
    page = commands_page()
    sections = {part.partition("\n")[0].strip("# `"): part for part in page.split("\n##")[1:]}
    found = dict(commands(get_command(app)))
    assert {*sections} == {*found}
    assert "jobs logs" in found
    for name, command in found.items():
        for param in command.params:
            for option in param.opts:
                if option.startswith("--"):
                    assert f"* `{option}" in sections[name], (name, option)
