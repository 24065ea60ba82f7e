"""The package as it is installed elsewhere, by pip or in an image."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("hpo", "sgformer", "search_spaces")


def test_every_file_of_a_package_is_installed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    listed = {
        path
        for package, patterns in settings["package-data"].items()
        for pattern in patterns
        for path in ROOT.joinpath(*package.split(".")).glob(pattern)
        if path.is_file()
    }
    there = {path for package in PACKAGES for path in ROOT.joinpath(package).rglob("*.*")}
    there = {path for path in there if path.is_file() and path.suffix not in {".py", ".pyc"}}
    assert there == listed
