"""The head of a Ray cluster on this machine, with dashboard and token, in a folder of its own."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from command_line import PATIENCE_SECONDS, environment_of_a_test
from ports import free_port

TOKEN = "t0ken" * 8


class RayHead:
    """A running head with two CPUs; its nodes have this checkout's package.

    Attributes:
        address: URL of its dashboard.
        folder: Ray's records: sessions with their logs.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="hpo-ray-", dir="/tmp"))  # short, for sockets
        port, dashboard, client, agent = (free_port() for _ in range(4))
        self.address = f"http://127.0.0.1:{dashboard}"
        programs = Path(sys.executable).parent
        environment = environment_of_a_test() | {
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": TOKEN,
        }
        options = {
            "--node-ip-address": "127.0.0.1", "--port": port,
            "--dashboard-host": "127.0.0.1", "--dashboard-port": dashboard,
            "--ray-client-server-port": client, "--dashboard-agent-listen-port": agent,
            "--temp-dir": self.folder, "--num-cpus": 2, "--num-gpus": 0,
            "--object-store-memory": 80_000_000,
        }  # fmt: skip
        flags = [str(part) for option in options.items() for part in option]
        command = [programs / "ray", "start", "--head", "--block", "--disable-usage-stats", *flags]
        self._log = self.folder / "head.log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        self._wait()

    def stop(self) -> None:
        """Stops the head with all that it started."""
        self._process.terminate()
        self._process.wait(PATIENCE_SECONDS)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _wait(self) -> None:
        end = time.monotonic() + PATIENCE_SECONDS
        while not self._takes_jobs():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < end, self._log.read_text()
            time.sleep(0.5)

    def _takes_jobs(self) -> bool:
        request = urllib.request.Request(
            f"{self.address}/api/jobs/", headers={"Authorization": f"Bearer {TOKEN}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            return False
