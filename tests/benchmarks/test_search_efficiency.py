"""Tests of benchmarks/search_efficiency.py, its clock and its wire to peers, on made-up curves.

The published optimizers are not installed here; peers/random_server.py stands for them.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from efficiency.clock import Work
    from efficiency.jobs import Job

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NUM_WORKERS = 4


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tasks in TaskSet's form: 60 configurations, losses at 51 moments."""
    folder = tmp_path_factory.mktemp("taskset")
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        low = np.array([1e-8, 0, 0, 1e-10, 1e-8, 1e-8, 1e-7, 1e-6])
        high = np.array([10, 1, 1, 1e3, 10, 10, 1e-4, 1e-3])
        u = rng.random((60, 8))
        params = np.where(low > 0, np.maximum(low, 1e-12) ** (1 - u) * high**u, u)
        valid = 1 + u[:, :1] + np.exp(-np.linspace(0, 3, 51))
        np.savez(folder / f"{name}.npz", params=params, valid=valid, test=valid)
    return folder


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.syspath_prepend(str(BENCHMARKS / "peers"))


def job(data: Path, strategy: str) -> "Job":
    from efficiency.jobs import Job

    return Job(strategy, "taskset", data, "a", 0, NUM_WORKERS, 0.0, "epochs", (2, 4))


class Scripted:
    """A search that gives the listed work, and pauses each trial at every epoch listed."""

    def __init__(self, work: "list[Work | None]", pauses: tuple[int, ...] = ()) -> None:
        self._work, self._pauses = iter(work), pauses
        self.reports: list[tuple[int, int]] = []

    def ask(self) -> "Work | None":
        return next(self._work, None)

    def goes_on(self, trial: int, epoch: int, value: float) -> bool:
        self.reports.append((trial, epoch))
        return epoch not in self._pauses

    def recommended(self) -> None:
        return None


def efficiency(data: Path, *arguments: str | Path) -> str:
    script = BENCHMARKS / "search_efficiency.py"
    done = subprocess.run(
        [
            sys.executable, script, "--bed", "taskset", "--data", data, "--split", "all",
            "--workers", str(NUM_WORKERS), "--budget", "5", "--processes", "1", *arguments,
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_peer_is_in_one_table_with_the_others_and_paired_with_the_first(
    data: Path, tmp_path: Path
) -> None:
    output, kept = tmp_path / "rows.json", tmp_path / "kept.jsonl"
    arguments = ("--strategies", "random-peer,random+asha", "--output", output, "--kept", kept)
    table = efficiency(data, "--seeds", "2", *arguments)
    rows = {row["strategy"]: row for row in json.loads(output.read_text())}
    ours, other = rows["random-peer"], rows["random+asha"]
    paired = rows["random-peer - random+asha"]
    # The stand-in for a peer recommends the best value seen.
    assert rows["random-peer, own choice"]["by_task"] == ours["by_task"]
    by_task = {task: ours["by_task"][task] - other["by_task"][task] for task in "abc"}
    assert paired["by_task"] == pytest.approx(by_task)
    assert paired["mean"] == pytest.approx(np.mean(list(by_task.values())))
    assert paired["se"] == pytest.approx(np.std(list(by_task.values()), ddof=1) / 3**0.5)
    assert "random-peer - random+asha" in table

    finished = kept.read_text()
    assert efficiency(data, "--seeds", "2", *arguments) == table
    assert kept.read_text() == finished  # no search was run again


@pytest.mark.usefixtures("modules")
def test_a_peer_begins_with_the_default_and_pays_for_new_epochs_only(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from efficiency.clock import ClockedRun
    from efficiency.jobs import Trainings
    from efficiency.peers import peer_search

    search_job = job(data, "random-peer@3")
    trainings = Trainings(search_job)
    reports = []
    with peer_search(search_job, trainings.task) as search:
        goes_on = search.goes_on
        monkeypatch.setattr(
            search, "goes_on", lambda *report: reports.append(report[:2]) or goes_on(*report)
        )
        run = ClockedRun(search_job, trainings, search)
        while run.spent < 51:
            run.step()
    np.testing.assert_array_equal(run.curves[0][0], trainings.curve(trainings.task.default)[0])
    assert run.spent == len(reports) == len(set(reports))
    assert max(epoch for _, epoch in reports) > 3  # of a trial that was resumed


@pytest.mark.usefixtures("modules")
def test_a_resumed_trial_goes_on_after_its_last_epoch(data: Path) -> None:
    from efficiency.clock import ClockedRun, Work
    from efficiency.jobs import Trainings

    trainings = Trainings(job(data, "scripted"))
    params = trainings.task.default
    search = Scripted([Work(0, params), None, None, Work(0, None)], pauses=(2,))
    run = ClockedRun(job(data, "scripted"), trainings, search)
    for _ in range(3):
        run.step()
    assert search.reports == [(0, 1), (0, 2), (0, 3)]
    assert run.spent == 3


@pytest.mark.usefixtures("modules")
def test_a_search_that_resumes_what_runs_or_never_answers_is_an_error(data: Path) -> None:
    from efficiency.clock import ClockedRun, Work
    from efficiency.jobs import Trainings

    scripted = job(data, "scripted")
    trainings = Trainings(scripted)
    params = trainings.task.default
    with pytest.raises(ValueError, match=r"trial=0, params=None\): neither the next new trial"):
        ClockedRun(scripted, trainings, Scripted([Work(0, params), Work(0, None)]))
    run = ClockedRun(scripted, trainings, Scripted([Work(0, params)], pauses=(1,)))
    run.step()
    with pytest.raises(RuntimeError, match="lets every worker wait, and no trial is running"):
        run.step()


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modules: None) -> None:
    from efficiency.peers import PEERS, Peer

    script = tmp_path / "broken_server.py"
    script.write_text("print('a library prints')\nraise SystemExit('no such kernel')\n")
    monkeypatch.setitem(PEERS, "broken", Peer(str(script), ""))
    monkeypatch.setitem(PEERS, "missing", Peer("missing_server.py", "missing"))


@pytest.mark.usefixtures("broken")
def test_what_a_peer_that_fails_has_printed_is_said(data: Path) -> None:
    from efficiency.peers import run_peer

    with pytest.raises(RuntimeError, match=r"(?s)the peer broken ended .*no such kernel"):
        run_peer(job(data, "broken"))
    with pytest.raises(FileNotFoundError, match=r"missing_server\.py needs .*make peers"):
        run_peer(job(data, "missing"))


@pytest.mark.usefixtures("modules")
def test_a_job_of_a_known_configuration_resumes_its_trial_or_is_told_at_once() -> None:
    from epoch_jobs import EpochJob, EpochJobs

    untils, told = iter((2, 1, 3)), list[tuple[int, float]]()
    jobs = EpochJobs(
        lambda: EpochJob("a", {"x": 1}, next(untils), None),
        lambda job, value: told.append((job.until, value)),
    )
    assert jobs.ask() == {"trial": 0, "params": {"x": 1}}
    assert [jobs.report(0, epoch, epoch / 10) for epoch in (1, 2)] == [True, False]
    assert jobs.ask() == {"trial": 0}
    assert told == [(2, 0.2), (1, 0.1)]
    assert not jobs.report(0, 3, 0.3)
