"""A private PostgreSQL server for a test, on a socket in a temporary folder."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest


def _program(name: str) -> str:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    program = str(found[-1]) if found else shutil.which(name)
    if program is None:
        message = "no PostgreSQL server programs here (Debian: apt-get install postgresql)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return program


class PostgresServer:
    """Creates and starts a server; `url` is the storage URL for Optuna."""

    def __init__(self) -> None:
        initdb, self._pg_ctl = _program("initdb"), _program("pg_ctl")
        self.folder = Path(tempfile.mkdtemp(prefix="hpo-pg-"))
        # initdb refuses to run as root.
        self._as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        if self._as_user:
            shutil.chown(self.folder, "postgres")
        self._run([initdb, "-D", self._data, "-A", "trust", "-U", "hpo"])
        self.url = f"postgresql+psycopg://hpo:secret@/postgres?host={self.folder}"
        self.start()

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def start(self) -> None:
        options = f"-c listen_addresses='' -k {self.folder}"
        log = str(self.folder / "log")
        self._run([self._pg_ctl, "-D", self._data, "-w", "-l", log, "-o", options, "start"])

    def stop(self) -> None:
        """Stops the server at once, as a power cut would."""
        self._run([self._pg_ctl, "-D", self._data, "-m", "immediate", "stop"])

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, command: list[str]) -> None:
        subprocess.run([*self._as_user, *command], check=True, stdout=subprocess.DEVNULL, cwd="/")
