"""A server on loopback that is no Ray cluster."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

SECONDS_OF_SILENCE = 8.0  # longer than a probe waits


@contextmanager
def other_server(answer: bytes | None, num_closed: int = 0) -> Iterator[str]:
    """HOST:PORT of a server for one connection, which gets the answer; None: the server is silent.

    It closes `num_closed` connections before that one.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for _ in range(num_closed):
                server.accept()[0].close()
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                if answer is None:
                    time.sleep(SECONDS_OF_SILENCE)
                else:
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
