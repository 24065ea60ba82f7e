"""The versions in deploy/ are those of constraints.txt and pyproject.toml."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(path for path in (ROOT / "deploy").iterdir() if path.name != "README.md")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINNED = dict(
    line.split("==")
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if "==" in line
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_versions_are_those_of_the_project(path: Path) -> None:
    text = path.read_text()
    assert set(re.findall(r"rayVersion: \"(.+)\"|ray(?:\[\w+\])?==([\d.]+)", text)) <= {
        (PINNED["ray"], ""), ("", PINNED["ray"]),
    }  # fmt: skip
    assert set(re.findall(r"sgformer-hpo:([\d.]+)-(?:cpu|cuda)", text)) <= {PROJECT["version"]}
    lowest = PROJECT["requires-python"].removeprefix(">=")
    assert set(re.findall(r"python:(\d+\.\d+)|Python (\d+\.\d+)", text)) <= {
        (lowest, ""), ("", lowest),
    }  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_each_file_says_when_to_use_it_and_how(path: Path) -> None:
    lines = path.read_text().removeprefix("#!/usr/bin/env bash\n").splitlines()
    assert lines[0].startswith("# When: ")
    assert any(line.startswith("#   ") for line in lines[:12])
    assert path.name in (ROOT / "deploy" / "README.md").read_text()
