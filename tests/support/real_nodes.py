"""A Ray cluster of processes on this machine, whose nodes may have folders of their own."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from command_line import PATIENCE_SECONDS, descendants, environment_of_a_test

RAY = Path(sys.executable).with_name("ray")
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 40}


class RealNodes:
    """A head, and nodes in mount and UTS namespaces of their own, with one CPU each.

    Attributes:
        address: HOST:PORT of the head.
        environment: Variables that a program needs to connect.
    """

    def __init__(self, logs: Path) -> None:
        if os.geteuid() != 0 or shutil.which("unshare") is None:
            pytest.skip("namespaces need root and unshare")
        self._logs = logs
        self._processes: list[subprocess.Popen] = []
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address, self.environment = f"127.0.0.1:{port}", TOKEN
        self._scratch = tempfile.mkdtemp(prefix="nodes-", dir="/tmp")  # short, for sockets
        self._start("head", f"--head --port={port} --temp-dir={self._scratch}")

    def add(self, name: str, hidden: Sequence[Path] = ()) -> None:
        """Starts a node of this host name, on which the `hidden` folders are empty."""
        mounts = [f"mount -t tmpfs none {folder}" for folder in hidden]
        script = " && ".join([f"hostname {name}", *mounts, 'exec "$@"'])
        alone = ("unshare", "--mount", "--uts", "sh", "-c", script, "-")
        self._start(name, f"--address={self.address}", alone)

    def close(self) -> None:
        for process in self._processes:
            for pid in (process.pid, *descendants(process.pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _start(self, name: str, options: str, alone: Sequence[str] = ()) -> None:
        options += " --num-cpus=1 --node-ip-address=127.0.0.1 --disable-usage-stats --block"
        if "--head" in options:
            options += " --include-dashboard=false"
        log = self._logs / f"{name}.log"
        with log.open("w") as file:
            process = subprocess.Popen(
                [*alone, str(RAY), "start", *options.split()],
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=environment_of_a_test() | self.environment,
            )
        self._processes.append(process)
        end = time.monotonic() + PATIENCE_SECONDS
        while "Ray runtime started" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)


@contextlib.contextmanager
def real_nodes(logs: Path) -> Iterator[RealNodes]:
    """A cluster for the block."""
    nodes = RealNodes(logs)
    try:
        yield nodes
    finally:
        nodes.close()
