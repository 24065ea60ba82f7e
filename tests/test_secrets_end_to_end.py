"""A search with a token and a database's password, neither of which may be found afterwards."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy
import yaml
from command_line import Background
from postgres import PostgresServer
from ray_heads import RayHead
from searches import search_values

from hpo.execution.cluster import connected

TOKEN = "token-" + "3c5e7a" * 6
PASSWORD = "password-91b2d4"


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    server = PostgresServer()
    yield server
    server.remove()


@pytest.fixture
def head() -> Iterator[RayHead]:
    head = RayHead(num_cpus=2, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN)
    try:
        yield head.wait()
    finally:
        head.stop()


@pytest.mark.cluster
def test_no_secret_is_left_anywhere(
    server: PostgresServer,
    head: RayHead,
    image_folder: Path,
    cache_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = search_values(image_folder, cache_dir) | {"study": {"num_trials": 2}}
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(values))
    url = server.url.replace("secret", PASSWORD)
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    search = Background(
        "search", file, "--output-dir", tmp_path / "runs", "--ray-address", head.address,
        log=tmp_path / "output", environment={"HPO_STORAGE": url},
    )  # fmt: skip
    commands: set[str] = set()
    while search.process.poll() is None:
        commands |= _all_commands()
        time.sleep(0.5)
    assert search.process.returncode == 0, search.log.read_text()
    files = [path for folder in (tmp_path, head.folder) for path in folder.rglob("*")]
    places = {
        "process list": "\n".join(commands),
        "study": _all_rows(url),
        "Ray's jobs": _jobs(head),
        **{str(path): _text(path) for path in files},
    }
    assert str(file) in places["process list"]
    assert str(file) in places["Ray's jobs"]
    assert "optimizer.learning_rate" in places["study"]
    assert f"{tmp_path}/runs/tiny/report.html" in places
    for secret in (TOKEN, PASSWORD):
        assert [place for place, text in places.items() if secret in text] == []


def _all_commands() -> set[str]:
    """The command lines of all processes of this machine."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended
            found.add(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return found


def _all_rows(url: str) -> str:
    engine = sqlalchemy.create_engine(url)
    tables = sqlalchemy.MetaData()
    tables.reflect(engine)
    with engine.connect() as connection:
        rows = [
            str(row)
            for table in tables.sorted_tables
            for row in connection.execute(table.select())
        ]
    engine.dispose()
    return "\n".join(rows)


def _jobs(head: RayHead) -> str:
    """What Ray keeps of the programs that have used the cluster."""
    with connected(head.address):
        from ray._private import state

        return str(state.jobs())


def _text(path: Path) -> str:
    return path.read_bytes().decode(errors="replace") if path.is_file() else ""
