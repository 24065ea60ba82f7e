"""The command that serves models by HTTP."""

import importlib.util
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpo.cli.output import print_note, print_rows
from sgformer.errors import InputError

if TYPE_CHECKING:
    from hpo.serving.model import ServedModel

PACKAGES = ("ray.serve", "fastapi", "uvicorn", "python_multipart", "fastapi_offline")


def serve(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="A run's folder, its best/, or a model.onnx; NAME=PATH gives it a name.",
        ),
    ],
    host: Annotated[
        str, typer.Option(help="An address beyond loopback needs a token of clients.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(help="Holds the token, mode 600. Default: HPO_SERVE_TOKEN, or a new one."),
    ] = None,
    replicas: Annotated[
        str, typer.Option(help="Processes of each model; 1:4 adds and removes some by load.")
    ] = "1",
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Of each process. Default: they share the CPUs but one."),
    ] = None,
    max_batch: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Images. Default: measured at the start.")
    ] = None,
    wait_ms: Annotated[
        float | None,
        typer.Option(min=0, max=10_000, help="Wait for a fuller batch. Default: measured."),
    ] = None,
    queue: Annotated[
        int | None,
        typer.Option(min=1, help="Requests of a model at a time. Default: 64, or four batches."),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds for a body, and for its answer.")
    ] = 30.0,
    max_megabytes: Annotated[float, typer.Option(min=0.001, help="Of a request's body.")] = 16.0,
    max_pixels: Annotated[int, typer.Option(min=1, help="Of an image.")] = 50_000_000,
) -> None:
    """Serves models by HTTP until Ctrl-C: POST an image to /predict; /docs has a form."""
    _require_packages()
    from hpo.access import SERVE_TOKEN, listen, take_token
    from hpo.execution.interruption import hear_signals_to_the_end, interruptible
    from hpo.execution.surroundings import usable_surroundings
    from hpo.serving.files import find_models
    from hpo.serving.server import Serving, serve_models
    from hpo.serving.settings import Limits, parse_replicas

    limits = Limits(int(max_megabytes * 1_000_000), max_pixels, queue, timeout)
    files = find_models(models)
    token, is_new = take_token(token_file, host, SERVE_TOKEN)
    wait = None if wait_ms is None else wait_ms / 1000
    processes = parse_replicas(replicas, threads, len(files))
    serving = Serving(files, limits, processes, max_batch, wait, token)
    hear_signals_to_the_end()
    with interruptible("interrupted"), usable_surroundings(), listen(host, port) as opened:
        if is_new:
            # To the terminal once, and nowhere else.
            print(f"token: {token}", file=sys.stderr, flush=True)
        serve_models(serving, opened, print_note, lambda ready: _print_ready(ready, opened))


def _require_packages() -> None:
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"serving needs packages that are not installed ({', '.join(missing)}): "
            "pip install -c constraints.txt '.[serve]'"
        )


def _print_ready(models: "Sequence[ServedModel]", opened: socket.socket) -> None:
    host, port = opened.getsockname()[:2]
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    rows = {
        f"model {model.name}": f"{model.num_classes} classes, {model.num_replicas} replicas, "
        f"batches of {model.batching.max_size} at most, "
        f"wait {1000 * model.batching.wait_seconds:.1f} ms, {model.most_requests} requests"
        for model in models
    }
    print_rows(rows | {"address": f"http://{address} (Ctrl-C ends it)"})
    sys.stdout.flush()
