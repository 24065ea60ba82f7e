"""A local S3 server for tests: moto's, on loopback."""

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from command_line import PATIENCE_SECONDS

KEYS = {"AWS_ACCESS_KEY_ID": "AKIAOFTHETEST", "AWS_SECRET_ACCESS_KEY": "secret-of-the-test"}
# Prints the port that it got before it serves.
SERVER = (
    "import sys\n"
    "from werkzeug.serving import make_server\n"
    "from moto.server import DomainDispatcherApplication, create_backend_app\n"
    "app = DomainDispatcherApplication(create_backend_app)\n"
    "server = make_server('127.0.0.1', 0, app, threaded=True)\n"
    "print(server.server_port, flush=True)\n"
    "server.serve_forever()\n"
)


@contextmanager
def s3_server(log: Path, *buckets: str) -> Iterator[dict[str, str]]:
    """The variables with which a program reaches a server that has these buckets."""
    pytest.importorskip("moto", reason="moto is not installed")
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [sys.executable, "-c", SERVER], stdout=subprocess.PIPE, stderr=errors, text=True
        ) as server,
    ):
        assert server.stdout is not None
        address = f"http://127.0.0.1:{server.stdout.readline().strip()}"
        try:
            for bucket in buckets:
                request = urllib.request.Request(f"{address}/{bucket}", method="PUT")
                urllib.request.urlopen(request, timeout=PATIENCE_SECONDS).close()
            yield {"AWS_ENDPOINT_URL": address, "AWS_DEFAULT_REGION": "us-east-1", **KEYS}
        finally:
            server.kill()
