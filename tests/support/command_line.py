"""Runs the program as a user does, in a process of its own."""

import contextlib
import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import optuna

PROGRAM = (sys.executable, str(Path(__file__).parents[2] / "run_search.py"))


def run(*arguments: object, expect: int = 0, **environment: str) -> subprocess.CompletedProcess:
    """The finished process; its exit code must be the expected one."""
    done = subprocess.run(
        [*PROGRAM, *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | environment,
    )
    assert done.returncode == expect, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


class Background:
    """A running command in a process group of its own."""

    def __init__(
        self, *arguments: object, log: Path, environment: dict[str, str] | None = None
    ) -> None:
        self.log = log
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [*PROGRAM, *map(str, arguments)],
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=os.environ | (environment or {}),
            )

    def wait_for(self, condition: Callable[[], bool], seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.1)

    def kill_everything(self) -> None:
        """As a power cut would: the driver, and Ray's processes that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def descendants(self) -> dict[int, str]:
        """Command lines of the processes below it, by pid."""
        return descendants(self.process.pid)


def descendants(root: int) -> dict[int, str]:
    """Command lines of the processes below a process, by pid."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(text.rpartition(")")[2].split()[1])
    found: dict[int, str] = {}
    for pid in parents:
        ancestor = pid
        while ancestor in parents and ancestor != root:
            ancestor = parents[ancestor]
        if ancestor == root and pid != ancestor:
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
            except OSError:
                continue
            found[pid] = command.replace(b"\0", b" ").decode()
    return found


def load_trials(run_dir: Path, url: str | None = None) -> list[optuna.trial.FrozenTrial]:
    """The run's trials as Optuna has them, in the run's own storage or another."""
    storage = optuna.storages.RDBStorage(url or f"sqlite:///{run_dir / 'study.db'}")
    try:
        return optuna.load_study(study_name=run_dir.name, storage=storage).trials
    finally:
        storage.engine.dispose()  # SQLite's log beside the file goes with the last reader


def load_epochs(run_dir: Path, number: int) -> list[dict[str, str]]:
    """Rows of a trial's epochs.csv."""
    path = run_dir / "trials" / str(number) / "epochs.csv"
    return list(csv.DictReader(path.open())) if path.exists() else []
