"""Tests of benchmarks/decision_histories.py, run as from a shell."""

import json
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
KILLED = "main/freeze_thaw/killed/slots1/seed0"


def decision_histories(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    script = CHECKOUT / "benchmarks/decision_histories.py"
    return subprocess.run(
        [sys.executable, script, *arguments], capture_output=True, text=True, check=False
    )


def test_a_history_equals_itself_and_one_moved_decision_is_found(tmp_path: Path) -> None:
    a, b = tmp_path / "a.json", tmp_path / "b.json"
    done = decision_histories("run", CHECKOUT, a, "--only", KILLED)
    assert done.returncode == 0, done.stderr
    histories = json.loads(a.read_text())
    assert histories[KILLED]["epochs_in_order"].count("killed") == 3

    same = decision_histories("compare", a, a)
    assert (same.returncode, same.stdout) == (0, "0 of 1 searches differ; 0 fail on both sides\n")

    histories[KILLED]["epochs_in_order"][5][0] += 1
    b.write_text(json.dumps(histories))
    moved = decision_histories("compare", a, b)
    assert moved.returncode == 1
    assert f"{KILLED}\n    first: .epochs_in_order[5][0]: A " in moved.stdout


def test_no_search_of_the_name_is_an_error(tmp_path: Path) -> None:
    done = decision_histories("run", CHECKOUT, tmp_path / "a.json", "--only", "no such search")
    assert done.returncode == 1
    assert "no search of --group any has --only 'no such search' in its name" in done.stderr
