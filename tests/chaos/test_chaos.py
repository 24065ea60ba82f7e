"""Short chaos test: three kills of the driver, every other fault once. Long: `make chaos`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHAOS = Path(__file__).parents[1] / "support" / "chaos.py"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_search_under_every_fault_is_as_one_left_alone() -> None:
    # In a process of its own, because chaos.py starts a Ray cluster.
    done = subprocess.run(
        [sys.executable, CHAOS, "--kills", "3"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counts = dict(line.rsplit("  ", 1) for line in done.stdout.splitlines() if line[:1] != "[")
    counts = {name.strip(): value.strip() for name, value in counts.items()}
    assert counts.pop("kills survived / kills made") == "3 / 3"
    assert int(counts.pop("kills within a trial")) >= 1
    assert set(counts.values()) == {"0"}
