import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from open_cluster import own_address
from other_server import other_server

from hpo.errors import ClusterError
from hpo.execution.head import checked_address, probe
from hpo.execution.jobs import JobServer
from hpo.execution.pins import Pins
from hpo.execution.submission import Submission


@pytest.mark.parametrize(
    "address",
    ["", "head:8265", "http://head", "http://:8265", "http://head:x", "http://head:99999",
     "ray://head:10001", "http://head:8265/jobs"],
)  # fmt: skip
def test_what_is_no_url_of_a_dashboard_is_refused(address: str) -> None:
    with pytest.raises(ClusterError, match=f"of a Ray dashboard: '{address}'; expected http://"):
        checked_address(address)


def test_a_password_in_an_address_is_not_shown() -> None:
    with pytest.raises(ClusterError, match="one with a user or a password") as caught:
        checked_address("http://user:hunter2@head:8265")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["http://10.0.0.1:8265", "https://head:443/", "http://[::1]:1"]
)
def test_urls_of_dashboards_are_accepted(address: str) -> None:
    assert checked_address(address) == address.rstrip("/")


class Answers(http.server.BaseHTTPRequestHandler):
    """A stand-in for dashboards that are not to be had here: of other programs and versions."""

    status, body = 200, b""

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    status, body = request.param
    handler = type("Handler", (Answers,), {"status": status, "body": body})
    with http.server.ThreadingHTTPServer(("", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    "server",
    [(200, b"<html>"), (200, b"[]"), (200, b"7"), (404, b""), (500, b"{}")],
    indirect=True,
)
def test_something_else_that_answers_is_named(server: str) -> None:
    with pytest.raises(ClusterError, match=f"what answers at {server} is no Ray dashboard"):
        probe(server)


@pytest.mark.parametrize("server", [(200, b'{"ray_version": "2.60.0"}')], indirect=True)
def test_a_head_beyond_this_machine_that_asks_for_no_token_is_refused(server: str) -> None:
    probe(server)
    address = server.replace("127.0.0.1", own_address())
    with pytest.raises(ClusterError, match=r"has no token authentication(.|\n)*--insecure uses"):
        probe(address)
    probe(address, insecure=True)


@pytest.mark.parametrize("answer", [b"\0\0\x18\x04\0\0\0\0\0", None])
def test_what_does_not_speak_http_is_named_at_once(answer: bytes | None) -> None:
    with other_server(answer) as address:
        message = f"answers at http://{address}(: timed out| is no Ray)"
        with pytest.raises(ClusterError, match=message):
            probe(f"http://{address}")


@pytest.mark.parametrize(
    "server", [(200, b'{"ray_version": "2.51.0", "version": "4"}')], indirect=True
)
def test_sources_are_not_sent_to_another_ray(
    server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")  # put back after the test
    jobs = JobServer(server)
    pins = Pins((), ())
    with pytest.raises(ClusterError, match=r"runs Ray 2\.51\.0, .* or give --image-has-it"):
        jobs.submit(Submission(tmp_path / "a.yaml", "a", Path("/shared"), pins=pins))
