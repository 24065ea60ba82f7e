"""Published optimizers, each in a process of its own environment, asked and told in JSON lines.

`make peers` makes the environments in build/peers from the files of benchmarks/peers. A peer is a
script that serves one of its library's strategies through benchmarks/peers/wire.py, which says
what the lines are. The benchmark owns the task, the clock and the workers; the peer owns the rest.
A further peer needs a script, a file of pinned versions, and a line in PEERS and in the Makefile.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from beds import Task
from efficiency.clock import Work, run_on_clock
from efficiency.jobs import Job, Outcome, Trainings
from efficiency.stock import RUNGS

BENCHMARKS: Final = Path(__file__).resolve().parents[1]
ENVIRONMENTS: Final = BENCHMARKS.parent / "build/peers"


@dataclass(frozen=True)
class Peer:
    """A script of benchmarks/peers and its environment in build/peers; "" is this process's."""

    script: str
    environment: str


SYNE_TUNE_13: Final = Peer("syne_tune_13_server.py", "syne-tune-0.13")
SYNE_TUNE_16: Final = Peer("syne_tune_16_server.py", "syne-tune-0.16")
NEPS: Final = Peer("neps_server.py", "neps")
PEERS: Final = {
    "mobster": SYNE_TUNE_13, "hypertune": SYNE_TUNE_13, "dyhpo": SYNE_TUNE_13,
    "pasha": SYNE_TUNE_13, "asha-promotion": SYNE_TUNE_13,
    "asha-cqr": SYNE_TUNE_16, "bohb": SYNE_TUNE_16,
    "smac": Peer("smac_server.py", "smac"),
    "priorband": NEPS, "async-hyperband": NEPS,
    "dehb": Peer("dehb_server.py", "dehb"),
    "random-peer": Peer("random_server.py", ""),
}  # fmt: skip


def is_peer(strategy: str) -> bool:
    return strategy.partition("@")[0] in PEERS


def run_peer(job: Job) -> Outcome:
    trainings = Trainings(job)
    with peer_search(job, trainings.task) as search:
        return run_on_clock(job, trainings, search)


@contextlib.contextmanager
def peer_search(job: Job, task: Task) -> Iterator["PeerSearch"]:
    """A search by a peer; `NAME@8` has its first rung at epoch 8 instead of 4."""
    name, _, first_rung = job.strategy.partition("@")
    peer = PEERS[name]
    command = [_python(peer), BENCHMARKS / "peers" / peer.script]
    with tempfile.TemporaryFile("w+") as printed, _process(command, printed) as (process, answers):
        search = PeerSearch(job.strategy, process, answers, printed)
        search.request(
            {
                "strategy": name, "seed": job.seed, "workers": job.workers,
                "space": dict(task.space), "default": task.default,
                "max_epochs": task.max_epochs, "first_rung": int(first_rung or RUNGS[0]),
                "reduction_factor": 3,
            }
        )  # fmt: skip
        yield search


class PeerSearch:
    """A peer's process as a search that is asked and told."""

    def __init__(
        self, name: str, process: "subprocess.Popen[bytes]", answers: IO[str], printed: IO[str]
    ) -> None:
        self._name, self._process = name, process
        self._answers, self._printed = answers, printed

    def ask(self) -> Work | None:
        answer = self.request({"ask": True})
        return None if answer["trial"] is None else Work(answer["trial"], answer.get("params"))

    def goes_on(self, trial: int, epoch: int, value: float) -> bool:
        answer = self.request({"trial": trial, "epoch": epoch, "value": value})
        return bool(answer["goes_on"])

    def recommended(self) -> int | None:
        trial: int | None = self.request({"recommend": True})["trial"]
        return trial

    def request(self, message: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
        line = self._answers.readline()
        if not line:
            self._process.wait()
            self._printed.seek(0)
            last = "".join(self._printed.readlines()[-15:])
            raise RuntimeError(f"the peer {self._name} ended at {message}:\n{last}")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextlib.contextmanager
def _process(
    command: Sequence[Path], printed: IO[str]
) -> Iterator[tuple["subprocess.Popen[bytes]", IO[str]]]:
    """The command, in a folder of its own, and what it writes to the descriptor added to it."""
    readable, writable = os.pipe()
    with (
        tempfile.TemporaryDirectory() as folder,
        os.fdopen(readable) as answers,
        subprocess.Popen(
            [*command, str(writable)], pass_fds=[writable], cwd=folder,
            bufsize=0, stdin=subprocess.PIPE, stdout=printed, stderr=printed,
            env=os.environ | {"PYTHONHASHSEED": "0"},  # SMAC depends on the order of sets
        ) as process,
    ):  # fmt: skip
        os.close(writable)
        try:
            yield process, answers
        finally:
            process.kill()  # nothing that it would still do is wanted


def _python(peer: Peer) -> Path:
    python = Path(sys.executable)
    if peer.environment:
        python = ENVIRONMENTS / peer.environment / "bin/python"
    if not python.exists():
        raise FileNotFoundError(f"{peer.script} needs {python}: run `make peers`")
    return python
