"""Tests of what all commands share: help, exit codes, light imports."""

import subprocess
import sys
from pathlib import Path

import pytest
from command_line import run
from commands import Call, refused


@pytest.mark.parametrize("command", ["status", "report", "dashboard", "retrain", "export"])
def test_what_is_no_run_folder_ends_with_2(call: Call, tmp_path: Path, command: str) -> None:
    assert f"not a run folder: {tmp_path}" in refused(call(command, tmp_path))


def test_an_unknown_option_ends_with_2(call: Call) -> None:
    assert "No such option" in refused(call("search", "--bogus"))


def test_help_needs_none_of_the_heavy_modules() -> None:
    heavy = ("torch", "ray", "timm", "optuna", "optuna_dashboard", "sklearn", "cv2")
    program = (
        "import sys; sys.argv = ['x', '--help']\n"
        "from hpo.cli.app import main\n"
        "try: main()\n"
        f"finally: print('loaded:', [m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "loaded: []" in done.stdout
    assert "search" in done.stdout


def test_a_wrong_setting_is_found_without_torch_or_ray(search_file: Path) -> None:
    program = (
        "import sys; sys.argv = ['x', 'search', sys.argv[1], '--set', 'study.num_trials=0']\n"
        "from hpo.cli.app import main\n"
        "try: main()\n"
        "finally: print('loaded:', [m for m in ('torch', 'ray', 'timm') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(search_file)], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "loaded: []" in done.stdout


@pytest.mark.parametrize("width", ["40", "80"])
def test_help_fits_a_narrow_terminal(width: str) -> None:
    text = run("search", "--help", COLUMNS=width).stdout
    assert max(map(len, text.splitlines())) <= int(width)
    assert "--dry-run" in text
