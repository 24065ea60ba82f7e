"""What clients may do to a server over a socket, and still get an answer, and leave it well."""

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from served import make_app, noise, picture, running

from hpo.serving import body, server
from hpo.serving.settings import Limits

HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\n"
LIMITS = Limits(body_bytes=1_000_000, pixels=50_000_000, requests=2, seconds=1.0)
CHUNK = b"186a0\r\n" + bytes(100_000) + b"\r\n"
Address = tuple[str, int]


@pytest.fixture
def address(model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Address]:
    monkeypatch.setattr(server, "SECONDS_OF_HEADERS", 0.5)
    monkeypatch.setattr(body, "SECONDS_OF_THE_REST", 0.5)
    with running(make_app(model, LIMITS), LIMITS) as address:
        yield address
        assert ask(address, picture())[0] == 200  # whatever was done to it


def connect(address: Address) -> socket.socket:
    return socket.create_connection(address, timeout=20)


def ask(address: Address, content: bytes) -> tuple[int, str, dict]:
    with connect(address) as client:
        client.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(content) + content)
        return answer_of(client)


def answer_of(client: socket.socket) -> tuple[int, str, dict]:
    """Status, headers and JSON of the answer that comes."""
    received = b""
    while b"\r\n\r\n" not in received:
        part = client.recv(65536)
        assert part, f"closed after {received!r}"
        received += part
    head, _, rest = received.partition(b"\r\n\r\n")
    headers = head.decode().lower()
    length = int(headers.split("content-length: ")[1].split("\r\n")[0])
    while len(rest) < length:
        rest += client.recv(65536)
    text = rest[:length]
    found = json.loads(text) if "application/json" in headers else {"detail": text.decode()}
    return int(head.split()[1]), headers, found


def is_closed(client: socket.socket) -> bool:
    """Whether the server closes the connection."""
    try:
        while client.recv(65536):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        return False
    return True


def test_an_endless_body_ends_at_the_limit(address: Address) -> None:
    with connect(address) as client:
        client.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(11):
            client.sendall(CHUNK)
        status, headers, found = answer_of(client)
        assert (status, "connection: close" in headers) == (413, True)
        assert "larger than 1,000,000 bytes" in found["detail"]
        assert is_closed(client)


def test_a_slow_body_ends_by_time(address: Address) -> None:
    with connect(address) as client:
        client.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        status, _, found = answer_of(client)
        assert (status, found["detail"]) == (
            408, "the body did not arrive within 1 seconds (--timeout)",
        )  # fmt: skip
        assert is_closed(client)


def test_a_client_that_asks_first_hears_the_refusal_before_it_sends(address: Address) -> None:
    with connect(address) as client:
        client.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: 9000000\r\n\r\n")
        assert answer_of(client)[0] == 413
        assert is_closed(client)


def test_a_client_that_sends_too_much_still_hears_the_refusal(
    address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "SECONDS_OF_THE_REST", 30.0)
    assert ask(address, bytes(40_000_000))[0] == 413


@pytest.mark.parametrize(
    "headers", [b"X: " + b"x" * 200_000, b"".join(b"X-%d: x\r\n" % i for i in range(20_000))]
)
def test_a_flood_of_headers_is_refused(address: Address, headers: bytes) -> None:
    with connect(address) as client:
        try:
            client.sendall(HEAD + headers + b"\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 400"
        except ConnectionError:
            pass  # it closed while we were sending
        assert is_closed(client)


def test_a_flood_of_trailers_is_refused(address: Address) -> None:
    with connect(address) as client:
        client.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n")
        try:
            for i in range(20_000):
                client.sendall(b"X-%d: %s\r\n" % (i, b"x" * 100))
        except ConnectionError:
            pass  # it closed while we were sending
        else:
            pytest.fail("trailers of 2 MB were read")


@pytest.mark.parametrize("sent", [b"", HEAD, b"P"])
def test_headers_that_do_not_arrive_close_the_connection(address: Address, sent: bytes) -> None:
    with connect(address) as client:
        client.sendall(sent)
        assert is_closed(client)


@pytest.mark.parametrize(
    "sent", [b"\x16\x03\x01\x02\0\x01\0", b"GET\r\n\r\n", b"\0" * 100 + b"\r\n\r\n"]
)
def test_what_is_no_http_is_refused(address: Address, sent: bytes) -> None:
    with connect(address) as client:
        client.sendall(sent)
        assert is_closed(client)


def test_a_slow_answer_ends_by_time_and_others_are_refused_meanwhile(model: Path) -> None:
    limits = Limits(pixels=100_000_000, requests=1, seconds=0.4)
    content = picture(0, (10_000, 9_000))  # takes longer to decode
    with running(make_app(model, limits), limits) as address:
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: ask(address, content), range(4)))
        statuses = [status for status, _, _ in answers]
        assert set(statuses) == {503, 504}
        for status, headers, _ in answers:
            assert ("retry-after: 1" in headers) == (status == 503)


def test_many_clients_get_the_answer_to_their_own_image(model: Path) -> None:
    limits = Limits(requests=64)
    with running(make_app(model, limits), limits) as address:
        shades = [(7 * i) % 256 for i in range(120)]
        alone = {shade: ask(address, picture(shade))[2]["classes"] for shade in set(shades)}
        with ThreadPoolExecutor(32) as pool:
            answers = list(pool.map(lambda shade: ask(address, picture(shade)), shades))
        for shade, (status, _, found) in zip(shades, answers, strict=True):
            assert status == 200
            for one, expected in zip(found["classes"], alone[shade], strict=True):
                assert one["class"] == expected["class"]
                assert one["probability"] == pytest.approx(expected["probability"], abs=1e-6)


def test_what_has_come_in_is_answered_before_the_end(model: Path) -> None:
    limits = Limits(requests=64)
    with ThreadPoolExecutor(1) as pool:
        with running(make_app(model, limits), limits) as address:
            client = connect(address)
            content = noise((2000, 1500))
            client.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(content) + content)
            waiting = pool.submit(answer_of, client)
            time.sleep(0.05)
        assert waiting.result()[0] == 200
        client.close()
        with pytest.raises(ConnectionRefusedError):
            connect(address)
