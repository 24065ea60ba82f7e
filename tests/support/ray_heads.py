"""Ray heads of tests: at a port of their own, ended with all their processes."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from command_line import PATIENCE_SECONDS, environment_of_a_test
from ports import free_port

# Ray takes 127.0.0.1 for this machine's address, as on macOS and Windows.
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
RAY = str(Path(sys.executable).with_name("ray"))


class RayHead:
    """`ray start --head`, with these variables beside those of the test.

    `folder`, with a short path, holds its home and Ray's session. One that `listens_on_loopback`
    is reached by drivers with the variables of LOOPBACK, and by no other node.
    """

    def __init__(
        self, num_cpus: int = 1, *, listens_on_loopback: bool = False, **environment: str
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="hpo-", dir="/tmp"))
        self.address = f"127.0.0.1:{free_port()}"
        self.for_drivers = LOOPBACK if listens_on_loopback else {}
        environment = {"HOME": str(self.folder), **self.for_drivers, **environment}
        self.log = self.folder / "head.log"
        port = self.address.rpartition(":")[2]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [
                    RAY, "start", "--head", "--block", f"--port={port}", f"--num-cpus={num_cpus}",
                    f"--temp-dir={self.folder}", "--disable-usage-stats",
                    "--include-dashboard=false",
                ],
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                env=environment_of_a_test() | environment,
            )  # fmt: skip

    def wait(self) -> "RayHead":
        """Waits until programs can connect."""
        end = time.monotonic() + PATIENCE_SECONDS
        while "runtime started" not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.1)
        return self

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
