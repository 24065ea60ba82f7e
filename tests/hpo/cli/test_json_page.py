"""Tests of docs/json.md, and of the documents' completeness; all calls of commands check them."""

import json
from pathlib import Path

import pytest
import typer
from commands import Call, refused, write_run
from json_documents import check_json
from pydantic import ValidationError
from typer.main import get_command

from hpo.cli.app import app
from hpo.cli.documents.commands import DOCUMENTS
from hpo.cli.json_page import page

PAGE = Path(__file__).parents[3] / "docs" / "json.md"


def commands_with_json() -> set[str]:
    """The names of all commands that take --json."""
    found, waiting = set(), [("", get_command(app))]
    while waiting:
        name, command = waiting.pop()
        waiting += [
            (f"{name} {n}".strip(), c) for n, c in getattr(command, "commands", {}).items()
        ]
        if any("--json" in getattr(p, "opts", ()) for p in command.params):
            found.add(name)
    return found


def test_the_page_is_made_of_the_documents() -> None:
    told = "docs/json.md is old: python -m hpo.cli.json_page > docs/json.md"
    assert PAGE.read_text(encoding="utf-8") == page(), told


def test_every_command_with_json_has_a_document() -> None:
    assert isinstance(app, typer.Typer)
    assert {name.removesuffix(" --dry-run") for name in DOCUMENTS} == commands_with_json()


def test_an_unknown_and_a_missing_key_are_found() -> None:
    good = '{"report": "a", "leaderboard": "b", "comparison": null, "copied_to": null}'
    check_json(("report", "run", "--json"), good)
    for bad in (good.replace('"b"', '"b", "c": 1'), '{"report": "a", "copied_to": null}'):
        with pytest.raises(ValidationError):
            check_json(("report", "run", "--json"), bad)


def test_reading_commands_print_their_documents(
    call: Call, search_file: Path, tmp_path: Path
) -> None:
    run_dir = write_run(tmp_path / "run", search_file)
    for command in ("status", "watch", "report", "simulate"):
        code, out, err = call(command, run_dir, "--json")
        assert (code, out[:1]) == (0, "{"), err
    other, path = write_run(tmp_path / "other", search_file), tmp_path / "page.html"
    code, out, err = call("report", run_dir, other, "--output", path, "--json")
    assert (code, json.loads(out)["comparison"]) == (0, str(path)), err


def test_a_plan_is_printed_as_json(call: Call, search_file: Path, tmp_path: Path) -> None:
    code, out, err = call(
        "search", search_file, "--output-dir", tmp_path / "runs", "--dry-run", "--json"
    )
    assert code == 0, err
    assert '"num_finalist_trainings": ' in out


def test_a_search_itself_prints_no_json(call: Call, search_file: Path) -> None:
    assert "give --dry-run, too" in refused(call("search", search_file, "--json"))
