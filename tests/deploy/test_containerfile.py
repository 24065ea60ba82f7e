"""deploy/Containerfile: its text is compared with .ci/run.

It cannot be built here: buildah installs, but no base image can be fetched. What it installs is
what the tests run with.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "deploy" / "Containerfile").read_text()
STAGES = {
    found[1]: found[2]
    for found in re.finditer(r"^FROM \S+ AS (\w+)\n(.*?)(?=^FROM|\Z)", TEXT, re.M | re.S)
}


def test_the_libraries_are_those_that_ci_installs() -> None:
    installed = set(
        re.findall(r"\blib\w[\w.-]*", STAGES["base"].split("no-install-recommends")[1])
    )
    needed = set(re.findall(r"packages\+=\((lib\S+)\)", (ROOT / ".ci" / "run").read_text()))
    assert installed == needed


@pytest.mark.parametrize("stage", ["cpu", "cuda"])
def test_what_is_installed_has_the_versions_that_were_tested(stage: str) -> None:
    commands = STAGES[stage].replace("\\\n", " ")
    installs = re.findall(r"pip install .*", commands)
    assert len(installs) == 2
    assert all("--constraint" in command for command in installs)
    assert "'.[cluster,postgresql]'" in installs[1]
    assert commands.index("COPY constraints.txt") < commands.index("COPY . ")
    assert "USER 1000" in commands
    assert ("NVIDIA_DRIVER_CAPABILITIES" in commands) == (stage == "cuda")
