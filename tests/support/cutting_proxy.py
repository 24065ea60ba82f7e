"""A proxy on loopback that cuts the first connection of a kind, as a laptop that falls asleep."""

import socket
import threading
from urllib.parse import urlsplit


class CuttingProxy:
    """Passes connections on to a server.

    Attributes:
        address: URL of the proxy.
        num_cut: How many connections it has cut: at most one.
    """

    def __init__(self, server: str, path: bytes, num_bytes: int) -> None:
        """Starts the proxy, which lives as long as the process.

        Args:
            server: URL of the server.
            path: The first connection with this in its request is cut ...
            num_bytes: ... when the server sends more after so many bytes.
        """
        parts = urlsplit(server)
        self._server, self._path, self._num_bytes = (parts.hostname, parts.port), path, num_bytes
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.num_cut = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._server) as server:
            request = client.recv(100_000)
            server.sendall(request)
            is_doomed = self._path in request and not self.num_cut
            threading.Thread(target=_pass_on, args=(client, server), daemon=True).start()
            num_passed_on = 0
            while data := server.recv(4096):
                if is_doomed and num_passed_on >= self._num_bytes:
                    self.num_cut += 1
                    client.shutdown(socket.SHUT_RDWR)
                    return
                client.sendall(data)
                num_passed_on += len(data)


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(100_000):
            target.sendall(data)
    except OSError:  # the other direction has ended
        pass
