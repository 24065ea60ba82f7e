"""Fixtures: commands called in this process; SQLite, journal and PostgreSQL storages."""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Call
from json_documents import check_json
from open_cluster import open_cluster
from postgres import PostgresServer

from hpo.cli import app as cli
from hpo.execution.interruption import SIGNALS


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    server = PostgresServer()
    yield server.url
    server.remove()


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server of one test, which the test may stop and start."""
    server = PostgresServer()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def open_address() -> Iterator[str]:
    """HOST:PORT, beyond loopback, of what looks like a Ray cluster without tokens."""
    with open_cluster() as address:
        yield address


@pytest.fixture(params=["sqlite", "journal", "postgresql"])
def storage_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        url: str = request.getfixturevalue("postgres_url")
        return url
    prefix = {"sqlite": "sqlite:///", "journal": "journal:"}[request.param]
    return f"{prefix}{tmp_path / 'storage'}"


@pytest.fixture
def _own_signal_handlers() -> Iterator[None]:
    """Puts the signal handlers back that a command leaves in place until its process ends."""
    former = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in former.items():
        signal.signal(number, handler)


@pytest.fixture
def call(
    _own_signal_handlers: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Call:
    """Calls a command in this process; gives exit code, standard output, standard error."""

    def run_command(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["run_search.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        check_json(arguments, out)
        return int(ended.value.code or 0), out, err

    return run_command
