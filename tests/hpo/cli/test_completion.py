"""Tests of what a shell completes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import Call, refused

from hpo.cli.completion import complete_runs, complete_search_files

COMPLETE = "import sys; sys.argv = ['sgformer-hpo']; from hpo.cli.app import main; main()"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two runs, a search file, and a folder that holds neither."""
    for name in ("runs/digits", "runs/flowers", "spaces", "runs/images/train", ".hidden/run"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("runs/digits", "runs/flowers", ".hidden/run"):
        (tmp_path / name / "search.yaml").touch()
        (tmp_path / name / ".mark").touch()
    (tmp_path / "spaces" / "core.yaml").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("", ["runs/digits", "runs/flowers"]),
        ("ru", ["runs/digits", "runs/flowers"]),
        ("runs/", ["runs/digits", "runs/flowers"]),
        ("runs/d", ["runs/digits"]),
        ("spaces/", []),
        ("no/such/", []),
    ],
)
def test_run_folders_are_completed(typed: str, expected: list[str]) -> None:
    assert complete_runs(typed) == expected


def test_run_folders_are_completed_by_their_absolute_paths(folder: Path) -> None:
    assert complete_runs(f"{folder}/runs/f") == [f"{folder}/runs/flowers"]


@pytest.mark.parametrize("typed", ["", "s", "spaces/", "spaces/c"])
def test_search_files_are_completed_without_those_of_runs(typed: str) -> None:
    assert complete_search_files(typed) == ["spaces/core.yaml"]


def test_a_search_file_of_init_is_completed_and_its_folder_is_no_run(folder: Path) -> None:
    (folder / "search.yaml").touch()
    assert complete_search_files("s") == ["search.yaml", "spaces/core.yaml"]
    assert complete_runs("") == ["runs/digits", "runs/flowers"]


@pytest.mark.parametrize("option", ["--install-completion", "--show-completion"])
def test_what_no_shell_can_complete_is_refused(call: Call, option: str) -> None:
    assert "give it to .venv/bin/sgformer-hpo" in refused(call(option))


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (("wat",), ["watch"]),
        (("status", "runs/d"), ["runs/digits"]),
        (("watch", "runs/"), ["runs/digits", "runs/flowers"]),
        (("search", "s"), ["spaces/core.yaml"]),
        (("submit", "s"), ["spaces/core.yaml"]),
    ],
)
def test_bash_gets_commands_runs_and_search_files(
    typed: tuple[str, ...], expected: list[str]
) -> None:
    words = " ".join(("sgformer-hpo", *typed))
    asked = {
        "_SGFORMER_HPO_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(typed)),
    }
    command = [sys.executable, "-c", COMPLETE]
    root = str(Path(__file__).parents[3])
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | asked | {"PYTHONPATH": root}
    )
    assert done.stdout.split() == expected, done.stderr
