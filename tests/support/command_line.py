"""Runs the program as a user does, in a process of its own."""

import contextlib
import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
from json_documents import check_json

PROGRAM = (sys.executable, str(Path(__file__).parents[2] / "run_search.py"))
TRAIN_ONLY = (sys.executable, str(Path(__file__).with_name("train_only.py")))
PATIENCE_SECONDS = 900.0  # generous, for busy machines; no test measures time by it


def run(
    *arguments: object,
    expect: int = 0,
    program: Sequence[str] = PROGRAM,
    **environment: str,
) -> subprocess.CompletedProcess:
    """Runs a command to its end and checks its exit code; returns the finished process."""
    done = subprocess.run(
        [*program, *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        env=environment_of_a_test() | environment,
    )
    assert done.returncode == expect, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    if tuple(program) == PROGRAM:
        check_json(arguments, done.stdout)
    return done


def environment_of_a_test() -> dict[str, str]:
    """The environment, in which programs of tests/support find this checkout's packages."""
    path = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(path)}


class Background:
    """A running command in a process group of its own."""

    def __init__(
        self,
        *arguments: object,
        log: Path,
        environment: dict[str, str] | None = None,
        program: Sequence[str] = PROGRAM,
    ) -> None:
        self.log = log
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [*program, *map(str, arguments)],
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=environment_of_a_test() | (environment or {}),
            )

    def wait_for(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.1)

    def kill_everything(self) -> None:
        """Kills the driver and the Ray processes that it started, as a power cut would."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def descendants(self) -> dict[int, str]:
        """Command lines of the driver's descendant processes, by pid."""
        return descendants(self.process.pid)


def descendants(root: int) -> dict[int, str]:
    """Command lines of a process's descendants, by pid."""
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
    """The run's trials as Optuna's objects, from the run's own storage or from `url`."""
    storage = optuna.storages.RDBStorage(url or f"sqlite:///{run_dir / 'study.db'}")
    try:
        return optuna.load_study(study_name=run_dir.name, storage=storage).trials
    finally:
        storage.engine.dispose()  # so that SQLite removes its log file


def load_epochs(run_dir: Path, number: int) -> list[dict[str, str]]:
    """Rows of a trial's epochs.csv."""
    path = run_dir / "trials" / str(number) / "epochs.csv"
    return list(csv.DictReader(path.open())) if path.exists() else []


def epochs_begun(run_dir: Path) -> list[tuple[int, str, str]]:
    """Trial, host name and number of each epoch begun in the trials."""
    found = []
    for path in run_dir.glob("trials/*/attempts.csv"):
        number = int(path.parent.name)
        rows = csv.DictReader(path.read_text().splitlines())
        found += [(number, row["hostname"], row["epoch"]) for row in rows]
    return found


def num_epochs_reported(run_dir: Path) -> list[int]:
    """Number of epochs that each trial has reported to the study."""
    if not (run_dir / "search.yaml").exists():  # study.db exists before search.yaml
        return []
    return [len(trial.intermediate_values) for trial in load_trials(run_dir)]


def study_attributes(run_dir: Path) -> dict[str, Any]:
    """The study's user attributes."""
    storage = optuna.storages.RDBStorage(f"sqlite:///{run_dir / 'study.db'}")
    try:
        return optuna.load_study(study_name=run_dir.name, storage=storage).user_attrs
    finally:
        storage.engine.dispose()


def fresh_trainings(run_dir: Path) -> dict[str, dict]:
    """The finalists' trainings on fresh seeds, by name, as stored in the study."""
    attributes = study_attributes(run_dir)
    return {k: v for k, v in attributes.items() if k.startswith("fresh_training:")}
