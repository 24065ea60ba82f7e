"""A local S3 server for tests: moto's, on loopback."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

KEYS = {"AWS_ACCESS_KEY_ID": "AKIAOFTHETEST", "AWS_SECRET_ACCESS_KEY": "secret-of-the-test"}
# Makes the buckets, and prints its port once they are there.
SERVER = (
    "import sys, threading, urllib.request\n"
    "from werkzeug.serving import make_server\n"
    "from moto.server import DomainDispatcherApplication, create_backend_app\n"
    "app = DomainDispatcherApplication(create_backend_app)\n"
    "server = make_server('127.0.0.1', 0, app, threaded=True)\n"
    "thread = threading.Thread(target=server.serve_forever)\n"
    "thread.start()\n"
    "for bucket in sys.argv[1:]:\n"
    "    url = f'http://127.0.0.1:{server.server_port}/{bucket}'\n"
    "    urllib.request.urlopen(urllib.request.Request(url, method='PUT')).close()\n"
    "print(server.server_port, flush=True)\n"
    "thread.join()\n"
)


@contextmanager
def s3_server(
    log: Path, *buckets: str, program: Sequence[str] = (sys.executable,)
) -> Iterator[dict[str, str]]:
    """The variables with which a program reaches a server that has these buckets.

    `program` is Python as a command line starts it, on a node for instance.
    """
    pytest.importorskip("moto", reason="moto is not installed")
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [*program, "-c", SERVER, *buckets], stdout=subprocess.PIPE, stderr=errors, text=True
        ) as server,
    ):
        assert server.stdout is not None
        address = f"http://127.0.0.1:{server.stdout.readline().strip()}"
        try:
            yield {"AWS_ENDPOINT_URL": address, "AWS_DEFAULT_REGION": "us-east-1", **KEYS}
        finally:
            server.kill()
