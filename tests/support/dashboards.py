"""A dashboard that is served, and a client that sends what it is told to."""

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from optuna.storages import BaseStorage

from hpo.access import listen
from hpo.dashboard.guard import Access
from hpo.dashboard.server import Dashboard


@dataclass(frozen=True)
class Answer:
    """An answer; names of headers are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Served:
    """A dashboard at a port of this machine, and its one-time link."""

    port: int
    url: str
    link: str | None

    def ask(
        self, path: str, method: str = "GET", body: bytes | None = None, **headers: str
    ) -> Answer:
        """Sends one request; `Host` is this machine's unless it is given."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, body, {"Host": f"localhost:{self.port}", **sent})
        found = connection.getresponse()
        content = found.read()
        connection.close()
        lower = {name.lower(): value for name, value in found.getheaders()}
        return Answer(found.status, lower, content)


@contextmanager
def served(storage: BaseStorage, access: Access, **options: Any) -> Iterator[Served]:
    """Serves until the block ends; binds loopback, whatever `access.host` says."""
    with listen("127.0.0.1", 0) as opened:
        dashboard = Dashboard(storage, opened, access, **options)
        thread = threading.Thread(target=dashboard.serve, daemon=True)
        thread.start()
        yield Served(opened.getsockname()[1], dashboard.url, dashboard.link)
        dashboard.close()
        thread.join(10)
