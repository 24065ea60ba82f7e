"""A stand-in for a Ray cluster without tokens beyond loopback: a real one lets anyone in."""

import contextlib
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest


@contextlib.contextmanager
def open_cluster() -> Iterator[str]:
    """HOST:PORT of a gRPC server that answers every request, at all addresses of this machine."""
    server = grpc.server(ThreadPoolExecutor(1), handlers=[_AnswersAll()])
    port = server.add_insecure_port("[::]:0")
    server.start()
    try:
        yield f"{own_address()}:{port}"
    finally:
        server.stop(0).wait()


class _AnswersAll(grpc.GenericRpcHandler):
    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(lambda request, context: b"")


def own_address() -> str:
    """An address of this machine beyond loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no address beyond loopback")
        return str(probe.getsockname()[0])
