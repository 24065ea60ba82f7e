"""PostgreSQL servers for tests: one on a socket in a temporary folder, and Debian's on a node."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NoReturn

import pytest
from namespaces import Node


def _program(name: str) -> str:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    program = str(found[-1]) if found else shutil.which(name)
    return program or _unavailable()


def _unavailable() -> NoReturn:
    message = "no PostgreSQL server programs here (Debian: apt-get install postgresql)"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


# Debian's server as its package makes it, on a node whose folders for it are empty. The package's
# certificate is made anew, as it is not on every machine of tests.
INSTALL = """
set -e
for place in /etc/postgresql /var/lib/postgresql /var/log/postgresql /run/postgresql; do
    mount -t tmpfs none $place; chown postgres $place
done
version=$(ls /usr/lib/postgresql | tail -1)
pg_createcluster $version main -- --no-sync
cd /var/lib/postgresql
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=database \\
    -keyout key -out crt
chown postgres key
for setting in "ssl on" "ssl_cert_file $PWD/crt" "ssl_key_file $PWD/key"; do
    pg_conftool $version main set $setting
done
pg_ctlcluster $version main start
"""
RESTART = 'pg_ctlcluster "$(ls /usr/lib/postgresql | tail -1)" main restart'


def install_postgres(node: Node) -> None:
    """Gives a node Debian's server; skips where Debian's programs are not installed."""
    if shutil.which("pg_createcluster") is None:
        _unavailable()
    node.run("sh", "-c", INSTALL)


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
