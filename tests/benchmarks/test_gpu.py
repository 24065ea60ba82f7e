import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "benchmarks/gpu.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_names_what_it_would_do_and_succeeds() -> None:
    done = run()
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.endswith("| skipped |")]
    named = {row.split("[")[0].strip("| ") for row in rows}
    assert "| test: two trials share a gpu | skipped |" in rows
    assert "| measure: sg_former_b2, our trainer | skipped |" in rows
    assert "| measure: 4 trainings of sg_former_micro on one GPU | skipped |" in rows
    assert len(named) >= 20


@pytest.mark.slow  # 15 s on two idle cores: three trainings, and two processes
def test_what_it_measures_runs_on_a_cpu() -> None:
    done = run("--device", "cpu", "--tiny")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 at a time: images/s in all" in done.stdout
    assert "FAILED" not in done.stdout
