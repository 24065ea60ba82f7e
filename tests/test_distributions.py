"""The wheel and the sdist have what the program needs, and nothing else."""

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
PARTS = ("hpo", "sgformer", "search_spaces", "run_search.py")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def needed() -> set[str]:
    """The program's files, of any kind."""
    paths = [path for part in PARTS for path in (ROOT / part, *(ROOT / part).rglob("*"))]
    files = [path for path in paths if path.is_file() and "__pycache__" not in path.parts]
    return {str(path.relative_to(ROOT)) for path in files}


def test_the_wheel_is_the_program(built: Path) -> None:
    with zipfile.ZipFile(built / f"sgformer_hpo-{VERSION}-py3-none-any.whl") as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        assert names == needed()
        entry_points = wheel.read(f"sgformer_hpo-{VERSION}.dist-info/entry_points.txt").decode()
    assert "sgformer-hpo = hpo.cli.app:main" in entry_points


def test_the_sdist_has_no_tests(built: Path) -> None:
    with tarfile.open(built / f"sgformer_hpo-{VERSION}.tar.gz") as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert needed() <= names
    assert not {name for name in names if name.startswith("tests")}
