"""Serves a model of tests/support/onnx_models.py in this process: all of serving but Ray."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from fastapi import FastAPI
from PIL import Image

from hpo.access import listen
from hpo.serving.app import create_app
from hpo.serving.batching import Result
from hpo.serving.metrics import Metrics
from hpo.serving.model import ServedModel
from hpo.serving.runner import Question, Runner
from hpo.serving.server import http_server
from hpo.serving.settings import Batching, Limits, Replicas

LIMITS = Limits(body_bytes=200_000, pixels=1_000_000, seconds=10.0)


def picture(shade: int = 0, size: tuple[int, int] = (40, 40), kind: str = "PNG") -> bytes:
    """An image file of one colour."""
    file = BytesIO()
    Image.new("RGB", size, (shade, 20, 255 - shade)).save(file, kind)
    return file.getvalue()


def noise(size: tuple[int, int]) -> bytes:
    """A PNG of random pixels, of width and height `size`."""
    file = BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def make_app(
    model: Path, limits: Limits = LIMITS, token: str | None = None, names: Sequence[str] = ("m",)
) -> FastAPI:
    """The application over a model whose batches are computed in threads of this process."""
    metrics, runner = Metrics(), Runner(model, 2, limits.pixels)

    async def send(questions: list[Question]) -> Sequence[Result]:
        return await asyncio.to_thread(runner.classify, questions)

    batching, replicas = Batching(8, 0.001), Replicas(1, 1, 2)
    models = {
        name: ServedModel(name, runner.num_classes, batching, replicas, limits, metrics, send)
        for name in names
    }
    return create_app(models, limits, metrics, token)


@contextlib.contextmanager
def running(app: FastAPI, limits: Limits = LIMITS) -> Iterator[tuple[str, int]]:
    """Host and port of a server of the application, in a thread, for the block."""
    server = http_server(app, limits)
    with listen("127.0.0.1", 0) as opened:
        thread = threading.Thread(target=lambda: asyncio.run(server._serve([opened])))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield opened.getsockname()[:2]
        server.should_exit = True
        thread.join()
