"""Tests of what make shows while pip installs."""

import contextlib
import os
import pty
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / ".ci" / "pip_progress.py"


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """Installs a package of one file into a folder, without a network."""
    info = "tiny_package-1.0.dist-info"
    wheel = tmp_path / "tiny_package-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("tiny_package.py", "")
        file.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-package\nVersion: 1.0\n"
        )
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{info}/RECORD", f"tiny_package.py,,\n{info}/RECORD,,\n")
    return ["--no-index", "--no-deps", "--target", str(tmp_path / "there"), str(wheel)]


def test_a_log_gets_a_line_a_step(arguments: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, PROGRAM, *arguments], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert lines[:2] == ["collecting packages", "installing 1 packages"]
    assert lines[-1].startswith("packages are installed (0:")
    assert (tmp_path / "there" / "tiny_package.py").exists()


def test_a_terminal_gets_one_line(arguments: list[str]) -> None:
    terminal, side = pty.openpty()
    subprocess.run([sys.executable, PROGRAM, *arguments], stdout=side, stderr=side, check=True)
    os.close(side)
    shown = b""
    with contextlib.suppress(OSError):  # all is read
        while chunk := os.read(terminal, 65536):
            shown += chunk
    os.close(terminal)
    text = shown.decode()
    assert text.count("\n") == 1
    assert "\rpackages are installed (0:" in text


def test_what_pip_cannot_do_ends_with_its_exit_code_and_words() -> None:
    command = [sys.executable, str(PROGRAM), "--no-index", "no-such-package==1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "No matching distribution found for no-such-package==1" in done.stderr
