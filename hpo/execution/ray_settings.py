"""Settings of Ray for this process and its children, for the time of a connection."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from importlib import import_module
from typing import Any, Final

from hpo.execution.cluster_access import TLS, TOKEN, asks_for_token

MODE: Final = "RAY_AUTH_MODE"


@contextlib.contextmanager
def ray_settings(address: str | None) -> Iterator[None]:
    """Makes Ray use its token for the block; a Ray of our own is bound to loopback.

    A Ray of our own gets a token that no file holds, whatever the environment says, and no TLS:
    certificates of a cluster are seldom for 127.0.0.1, and Ray would wait for minutes. To a
    cluster the token is sent only if it asks for one; Ray would send none to a given address.

    Args:
        address: HOST:PORT of a cluster; None: a Ray that this process starts.

    Raises:
        ClusterError: No Ray cluster answers at the address.
    """
    if address is None:
        settings = {MODE: "token", TOKEN: secrets.token_hex(32), TLS: "0"}
    else:
        settings = {MODE: "token" if asks_for_token(address) else "disabled"}
    former = {name: os.environ.get(name) for name in settings}
    os.environ |= settings
    try:
        with _loopback() if address is None else contextlib.nullcontext():
            _read_again()
            yield
    finally:
        for name, value in former.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        _read_again()


@contextlib.contextmanager
def _loopback() -> Iterator[None]:
    """Makes Ray take 127.0.0.1 for this machine's address, as it does on macOS and Windows.

    Then all its processes listen there only; `_node_ip_address` of ray.init does not do it.
    """
    from ray._private import ray_constants

    former = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = former


def _read_again() -> None:
    """Makes Ray read mode and token from the environment; else it keeps what it read first."""
    raylet: Any = import_module("ray._raylet")  # it has no annotations
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()
