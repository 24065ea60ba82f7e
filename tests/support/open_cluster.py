"""A stand-in for a Ray cluster without tokens beyond loopback: a real one lets anyone in.

It is a program of its own: with gRPC's threads in a test's process, the processes that this forks
may hang, Ray's among them.
"""

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest


@contextlib.contextmanager
def open_cluster() -> Iterator[str]:
    """HOST:PORT of a gRPC server that answers every request, at all addresses of this machine."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, __file__], stdin=pipe, stdout=pipe, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        yield f"{own_address()}:{int(server.stdout.readline())}"
        server.stdin.close()  # it ends


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


def main() -> None:
    server = grpc.server(ThreadPoolExecutor(1), handlers=[_AnswersAll()])
    print(server.add_insecure_port("[::]:0"), flush=True)
    server.start()
    sys.stdin.read()
    server.stop(0).wait()


if __name__ == "__main__":
    main()
