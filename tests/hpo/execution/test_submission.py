import os
import shlex
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
import yaml

from hpo.execution.pins import Pins
from hpo.execution.submission import Submission, job_id

PINS = Pins(("numpy==2.4.6", "ray[tune]==2.60.0"), ("numpy==2.4.6", "pandas==3.1.1"))


@pytest.fixture
def submission(search_file: Path) -> Submission:
    options = ("--set", "study.constraints=[latency_ms <= 5]", "--data-dir", "/it's $HOME")
    return Submission(search_file, "tiny", Path("/shared/my runs"), options, PINS)


def test_a_shell_passes_the_options_on_as_they_are(submission: Submission, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    python.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "RAY_ADDRESS": "10.0.0.1:6379"}
    done = subprocess.run(
        submission.entrypoint, shell=True, capture_output=True, text=True, env=environment
    )
    assert done.stdout.splitlines() == [
        "-m", "run_search", "search", "tiny.yaml", "--study-name", "tiny",
        "--output-dir", "/shared/my runs", "--set", "study.constraints=[latency_ms <= 5]",
        "--data-dir", "/it's $HOME", "--ray-address", "10.0.0.1:6379",
    ]  # fmt: skip
    assert shlex.split(submission.entrypoint)[0] == "exec"  # else the shell gets the signals


def test_an_image_that_has_the_package_gets_the_search_file_only(
    submission: Submission, search_file: Path, tmp_path: Path
) -> None:
    sent = Submission(search_file, "tiny", submission.output_dir)
    sent.write(tmp_path / "sent")
    (only,) = (tmp_path / "sent").iterdir()
    assert yaml.safe_load(only.read_text()) == yaml.safe_load(search_file.read_text())
    assert sent.runtime_env == {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "300"}}


def test_else_the_sources_are_sent_with_the_versions_of_what_they_need(
    submission: Submission, tmp_path: Path
) -> None:
    folder = tmp_path / "sent"
    submission.write(folder)
    constraints, *requirements = submission.runtime_env["pip"]["packages"]
    assert requirements == list(PINS.direct)
    option, _, path = constraints.partition(" ")
    assert (option, Path(path).parent.name) == (
        "--constraint",
        "${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}",
    )
    assert (folder / Path(path).name).read_text().splitlines() == list(PINS.all)
    assert {entry.name for entry in folder.iterdir()} == {
        "tiny.yaml", "run_search.py", "hpo", "sgformer", "search_spaces", Path(path).name,
    }  # fmt: skip
    assert not list(folder.rglob("__pycache__"))
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    program = "import hpo, sgformer, search_spaces\nfor one in hpo, sgformer, search_spaces: "
    for command in (["-c", f"{program}print(one.__file__)"], ["-m", "run_search", "--help"]):
        done = subprocess.run(
            [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        if command[0] == "-c":
            assert all(Path(file).is_relative_to(folder) for file in done.stdout.split())


def test_other_versions_are_another_environment_to_ray(submission: Submission) -> None:
    """Ray takes environments whose requirements read the same for the same."""
    other = Submission(
        submission.search_file, "tiny", submission.output_dir,
        pins=Pins(PINS.direct, ("numpy==2.4.6", "pandas==3.1.0")),
    )  # fmt: skip
    assert other.runtime_env["pip"] != submission.runtime_env["pip"]


def test_a_job_is_named_by_study_and_time() -> None:
    assert job_id("digits", datetime(2026, 11, 29, 9, 6, 18)) == "digits-1129-090618"
