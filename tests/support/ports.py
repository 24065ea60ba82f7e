"""Ports for servers of tests that open them seconds later."""

import random
import socket

# Below those that the kernel gives to connections, which would take one meanwhile, and above
# those that Ray gives to its workers.
FIRST, LAST = 20_000, 32_000


def free_port() -> int:
    """A port of loopback where nobody listens."""
    while True:
        port = random.SystemRandom().randint(FIRST, LAST)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
