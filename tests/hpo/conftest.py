"""Storages to test against: SQLite, a journal file, and a real PostgreSQL server."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres import PostgresServer


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    server = PostgresServer()
    yield server.url
    server.remove()


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """One that the test may stop and start."""
    server = PostgresServer()
    yield server
    server.remove()


@pytest.fixture(params=["sqlite", "journal", "postgresql"])
def storage_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        url: str = request.getfixturevalue("postgres_url")
        return url
    prefix = {"sqlite": "sqlite:///", "journal": "journal:"}[request.param]
    return f"{prefix}{tmp_path / 'storage'}"
