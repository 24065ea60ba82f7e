"""Storages to test against: SQLite, a journal file, and a real PostgreSQL server."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


def postgres_program(name: str) -> str | None:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else shutil.which(name)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A server of its own, on a socket in a temporary folder, ended afterwards."""
    initdb, pg_ctl = postgres_program("initdb"), postgres_program("pg_ctl")
    if initdb is None or pg_ctl is None:
        pytest.skip("no PostgreSQL server programs here (Debian: apt-get install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="hpo-pg-"))
    # initdb refuses to run as root.
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if as_user:
        shutil.chown(folder, "postgres")
    data, options = str(folder / "data"), f"-c listen_addresses='' -k {folder}"
    run = {"check": True, "stdout": subprocess.DEVNULL, "cwd": "/"}
    subprocess.run([*as_user, initdb, "-D", data, "-A", "trust", "-U", "hpo"], **run)
    log = str(folder / "log")
    subprocess.run([*as_user, pg_ctl, "-D", data, "-w", "-l", log, "-o", options, "start"], **run)
    try:
        yield f"postgresql+psycopg://hpo:secret@/postgres?host={folder}"
    finally:
        subprocess.run([*as_user, pg_ctl, "-D", data, "-m", "immediate", "stop"], **run)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "journal", "postgresql"])
def storage_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        url: str = request.getfixturevalue("postgres_url")
        return url
    prefix = {"sqlite": "sqlite:///", "journal": "journal:"}[request.param]
    return f"{prefix}{tmp_path / 'storage'}"
