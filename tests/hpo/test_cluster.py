import socket
import threading
import time

import pytest

from hpo.cluster import TrialResources, check_address, trial_resources
from hpo.config import ResourcesConfig
from hpo.errors import ClusterError


@pytest.mark.parametrize(
    ("config", "cpus", "gpus", "expected"),
    [
        ({}, 4, 0, TrialResources(1, 0.0, 4)),
        ({}, 16, 2, TrialResources(8, 1.0, 2)),
        ({"gpus_per_trial": 0}, 16, 2, TrialResources(1, 0.0, 16)),
        ({"gpus_per_trial": 0.5}, 16, 2, TrialResources(4, 0.5, 4)),
        ({"cpus_per_trial": 3}, 8, 0, TrialResources(3, 0.0, 2)),
        ({"max_concurrent_trials": 2}, 8, 0, TrialResources(1, 0.0, 2)),
        ({"max_concurrent_trials": 99}, 8, 0, TrialResources(1, 0.0, 8)),
    ],
)
def test_a_trial_takes_its_share(
    config: dict, cpus: int, gpus: int, expected: TrialResources
) -> None:
    assert trial_resources(ResourcesConfig.model_validate(config), cpus, gpus) == expected


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"gpus_per_trial": 1}, "gpus_per_trial: a trial asks for 1 GPU and there are 0"),
        ({"cpus_per_trial": 99}, "cpus_per_trial: a trial asks for 99 CPUs and there are 4"),
    ],
)
def test_what_is_not_there_is_refused(config: dict, message: str) -> None:
    with pytest.raises(ClusterError, match=message):
        trial_resources(ResourcesConfig.model_validate(config), 4, 0)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("address", ["nonsense", "http://127.0.0.1:8265", "host:port", ":1"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ClusterError, match=f"not a Ray address: '{address}'; expected HOST:PORT"):
        check_address(address)


def test_an_address_where_nobody_answers_is_named_at_once() -> None:
    start = time.monotonic()
    with pytest.raises(ClusterError, match=r"no Ray cluster answers at 127\.0\.0\.1:\d+"):
        check_address(f"127.0.0.1:{free_port()}")
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", None])
def test_an_address_where_something_else_answers_is_named_at_once(answer: bytes | None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                if answer is None:  # says nothing, and stays
                    time.sleep(8)
                else:
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        start = time.monotonic()
        with pytest.raises(ClusterError, match=f"{address}(:| is no Ray cluster)"):
            check_address(address)
        assert time.monotonic() - start < 10
