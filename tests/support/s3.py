"""A local S3 server for tests: moto's, on loopback."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

KEYS = {"AWS_ACCESS_KEY_ID": "AKIAOFTHETEST", "AWS_SECRET_ACCESS_KEY": "secret-of-the-test"}
# Has the buckets before it prints the port that it got, and then serves.
SERVER = """
import sys, threading, urllib.request
from werkzeug.serving import make_server
from moto.server import DomainDispatcherApplication, create_backend_app
host, port, *buckets = sys.argv[1:]
app = DomainDispatcherApplication(create_backend_app)
server = make_server(host, int(port), app, threaded=True)
threading.Thread(target=server.serve_forever).start()
for bucket in buckets:
    url = f"http://127.0.0.1:{server.server_port}/{bucket}"
    urllib.request.urlopen(urllib.request.Request(url, method="PUT")).close()
print(server.server_port, flush=True)
"""


@contextmanager
def s3_server(log: Path, *buckets: str) -> Iterator[dict[str, str]]:
    """The variables with which a program reaches a server that has these buckets."""
    with server_on((), 0, log, *buckets, host="127.0.0.1") as port:
        address = f"http://127.0.0.1:{port}"
        yield {"AWS_ENDPOINT_URL": address, "AWS_DEFAULT_REGION": "us-east-1", **KEYS}


@contextmanager
def s3_environment(log: Path, *buckets: str) -> Iterator[None]:
    """Lets this process and those that it starts reach such a server."""
    with s3_server(log, *buckets) as variables, pytest.MonkeyPatch.context() as patched:
        for name, value in variables.items():
            patched.setenv(name, value)
        yield


@contextmanager
def server_on(
    program: Sequence[str], port: int, log: Path, *buckets: str, host: str = "0.0.0.0"
) -> Iterator[int]:
    """The port of a server that is started by a command, as on another machine."""
    pytest.importorskip("moto", reason="moto is not installed")
    command = [*program, sys.executable, "-c", SERVER, host, str(port), *buckets]
    with (
        log.open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as server,
    ):
        assert server.stdout is not None
        try:
            line = server.stdout.readline().strip()
            assert line, log.read_text()
            yield int(line)
        finally:
            server.kill()
