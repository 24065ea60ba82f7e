"""Serves models until a signal: Ray Serve's replicas, and an HTTP server of this process."""

import asyncio
import contextlib
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from hpo.execution.cluster import connected
from hpo.execution.interruption import SIGNALS
from hpo.serving.app import create_app
from hpo.serving.deployment import start_serve
from hpo.serving.files import ModelFile
from hpo.serving.metrics import Metrics
from hpo.serving.model import ServedModel
from hpo.serving.reloading import Deployed
from hpo.serving.settings import Batching, Limits, Replicas

SECONDS_OF_HEADERS: Final = 10.0
MOST_BYTES_OF_HEADERS: Final = 64 * 2**10
_TOO_MUCH: Final = "More than 64 KiB that are no body."
MOST_CONNECTIONS: Final = 512
# Longer than clients keep one: who sends on a connection that is being closed loses the request.
SECONDS_OF_AN_IDLE_CONNECTION: Final = 75


@dataclass(frozen=True)
class Serving:
    """What is served, and how.

    Attributes:
        files: The models.
        limits: Limits of requests.
        replicas: The processes of each model.
        max_batch_size: The most images of a batch; None: it is measured.
        wait_seconds: How long a batch waits for more images; None: it is measured.
        token: What clients must show; None: anybody on this machine may ask.
    """

    files: Sequence[ModelFile]
    limits: Limits
    replicas: Replicas
    max_batch_size: int | None = None
    wait_seconds: float | None = None
    token: str | None = None

    def batching(self, measured: Batching | None) -> Batching:
        """The batches that were asked for, and where nothing was, those that were measured."""
        best = measured or Batching(1, 0.0)
        size = best.max_size if self.max_batch_size is None else self.max_batch_size
        wait = best.wait_seconds if self.wait_seconds is None else self.wait_seconds
        return Batching(size, wait if size > 1 else 0.0)


def serve_models(
    serving: Serving,
    opened: socket.socket,
    tell: Callable[[str], None],
    on_ready: Callable[[Sequence[ServedModel]], None],
) -> None:
    """Serves until a signal arrives, then answers what has come in, and ends.

    Args:
        serving: What is served.
        opened: The socket.
        tell: Is told of new models, and what fails.
        on_ready: Is called once with the models, before the first request.

    Raises:
        InputError: A file is not an exported model.
        RunError: Replicas do not start.
    """
    metrics = Metrics()
    with tempfile.TemporaryDirectory(prefix="sgformer-hpo-") as folder, connected(None):
        start_serve()
        deployed = [
            Deployed(
                file, serving.replicas, serving.limits, serving.batching, metrics, Path(folder),
                tell,
            )
            for file in serving.files
        ]  # fmt: skip
        models = {one.model.name: one.model for one in deployed}
        app = create_app(models, serving.limits, metrics, serving.token, _watching(deployed))
        on_ready(tuple(models.values()))
        http_server(app, serving.limits).run([opened])


def _watching(deployed: Sequence[Deployed]) -> Callable[[FastAPI], Any]:
    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(one.watch()) for one in deployed]
        yield
        for task in tasks:
            task.cancel()

    return lifespan


def http_server(app: FastAPI, limits: Limits) -> uvicorn.Server:
    """A server that is safe with what clients send; a signal ends it when all is answered."""
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=SECONDS_OF_AN_IDLE_CONNECTION,
        timeout_graceful_shutdown=int(2 * limits.seconds) + 1,
    )
    return _Server(config)


class _Server(uvicorn.Server):
    """Ends on the signals that end a search; they are handled here and not raised again."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        former = {number: signal.signal(number, self.handle_exit) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)


class _Protocol(HttpToolsProtocol):
    """Bounds the time of a request's head, and all bytes that are no body; uvicorn takes any."""

    _timer: asyncio.TimerHandle | None = None
    _other_bytes = 0  # that are no body, since a part of a body or a whole head
    _header_bytes = 0  # of the headers and trailers of this request

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._time_head()

    def data_received(self, data: bytes) -> None:
        self._other_bytes += len(data)
        super().data_received(data)
        if self._other_bytes > MOST_BYTES_OF_HEADERS and not self.transport.is_closing():
            self.send_400_response(_TOO_MUCH)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._header_bytes = 0
        self._time_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > MOST_BYTES_OF_HEADERS:
            raise ValueError(_TOO_MUCH)  # the parser's, which answers 400
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._stop()
        self._other_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._other_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._other_bytes = 0
        super().on_message_complete()

    def _time_head(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(SECONDS_OF_HEADERS, self.transport.close)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
