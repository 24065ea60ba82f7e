import subprocess
import sys
import time
from pathlib import Path

import pytest

import hpo.execution.attempts
from hpo.errors import RunError
from hpo.execution.attempts import Attempts


def test_epochs_are_counted_as_they_are_begun(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path / "0")
    assert attempts.count() == 0
    with attempts.alone():
        for epoch in (1, 2, 2):
            attempts.note(epoch)
    with Attempts(tmp_path / "0").alone():
        attempts.note(3)
    assert attempts.epochs() == (1, 2, 2, 3)
    assert attempts.path.read_text().startswith("started_at,hostname,pid,epoch\n2")


@pytest.mark.parametrize("cut", ["started_", "2026-11-28T07:00:00+00:00,node,12"])
def test_a_line_that_a_full_disk_cut_costs_no_other(tmp_path: Path, cut: str) -> None:
    attempts = Attempts(tmp_path)
    attempts.path.write_text(cut)
    assert attempts.count() == 0
    attempts.note(1)
    attempts.note(2)
    assert attempts.epochs() == (1, 2)


HOLD = (
    "import sys, time\n"
    "from pathlib import Path\n"
    "from hpo.execution.attempts import Attempts\n"
    "with Attempts(Path(sys.argv[1])).alone():\n"
    "    print('mine', flush=True)\n"
    "    time.sleep(float(sys.argv[2]))\n"
)


def hold(folder: Path, seconds: float) -> subprocess.Popen:
    command = [sys.executable, "-c", HOLD, str(folder), str(seconds)]
    other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "mine\n"
    return other


def test_another_process_is_waited_for(tmp_path: Path) -> None:
    start = time.monotonic()
    other = hold(tmp_path, 2)
    with Attempts(tmp_path).alone():
        assert other.wait(5) == 0
    assert time.monotonic() - start > 2


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    other = hold(tmp_path, 600)
    other.kill()
    with Attempts(tmp_path).alone():
        other.wait()


def test_one_that_does_not_end_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hpo.execution.attempts, "PATIENCE_SECONDS", 0.3)
    other = hold(tmp_path, 600)
    try:
        with (
            pytest.raises(RunError, match="another process trains in"),
            Attempts(tmp_path).alone(),
        ):
            pass
    finally:
        other.kill()
        other.wait()


def test_who_leaves_in_validation_repeats_no_epoch(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path)
    attempts.begin(3)
    for _ in range(3):
        attempts.begin(3, 50, only_val=True)
    assert attempts.count() == 1
    attempts.begin(3, 12)
    attempts.begin(3, 12)
    assert attempts.count() == 2
