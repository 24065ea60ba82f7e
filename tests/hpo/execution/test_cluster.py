import socket
import subprocess
import sys
import threading
import time
from importlib.resources import files
from pathlib import Path

import pytest

from hpo.config.loading import load_search_config
from hpo.config.schema import ResourcesConfig
from hpo.errors import ClusterError
from hpo.execution.cluster import (
    Node,
    TrialResources,
    check_address,
    resources_or_hope,
    trial_resources,
)

HEAD, GPU_NODE = Node(64, 0), Node(8, 2)
SHIPPED = sorted(Path(str(files("search_spaces"))).glob("*.yaml"))


@pytest.mark.parametrize(
    ("config", "nodes", "expected"),
    [
        ({}, [Node(4, 0)], TrialResources(1, 0.0, 4)),
        ({}, [Node(16, 2)], TrialResources(8, 1.0, 2)),
        ({}, [HEAD, GPU_NODE, GPU_NODE], TrialResources(4, 1.0, 4)),
        ({"gpus_per_trial": 0}, [Node(16, 2)], TrialResources(1, 0.0, 16)),
        ({"gpus_per_trial": 0.5}, [Node(16, 2)], TrialResources(4, 0.5, 4)),
        ({"gpus_per_trial": 0.3}, [Node(16, 2)], TrialResources(2, 0.3, 6)),
        ({"cpus_per_trial": 3}, [Node(8, 0), Node(4, 0)], TrialResources(3, 0.0, 3)),
        ({"max_concurrent_trials": 2}, [Node(8, 0)], TrialResources(1, 0.0, 2)),
        ({"max_concurrent_trials": 99}, [Node(8, 0)], TrialResources(1, 0.0, 8)),
    ],
)
def test_a_trial_takes_its_share_of_one_node(
    config: dict, nodes: list[Node], expected: TrialResources
) -> None:
    assert trial_resources(ResourcesConfig.model_validate(config), nodes) == expected


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
@pytest.mark.parametrize("node", [Node(1, 0), Node(4, 1)])
def test_shipped_search_files_start_on_one_cpu_and_on_a_small_machine_with_a_gpu(
    path: Path, node: Node
) -> None:
    config, _ = load_search_config(path)
    resources = trial_resources(config.resources, [node])
    assert resources.num_slots >= 1
    assert config.train.data.num_workers is None
    if config.resources.gpus_per_trial is None:
        assert (resources.cpus, resources.gpus) == (node.cpus, node.gpus)


@pytest.mark.parametrize(
    ("placement", "nodes", "expected", "num_slots"),
    [
        (None, [Node(4, 0), Node(4, 0)], "strict_pack", 2),
        (None, [Node(2, 0), Node(2, 0)], "pack", 1),
        ("pack", [Node(4, 0), Node(2, 0)], "pack", 2),
        ("strict_pack", [Node(4, 0), Node(2, 0)], "strict_pack", 1),
        ("spread", [Node(4, 0), Node(2, 0)], "spread", 2),
    ],
)
def test_a_group_runs_on_one_node_unless_none_holds_it_or_the_config_says_so(
    placement: str | None, nodes: list[Node], expected: str, num_slots: int
) -> None:
    config = ResourcesConfig(workers_per_trial=3, placement=placement)
    found = trial_resources(config, nodes)
    assert (found.placement, found.num_slots) == (expected, num_slots)


def test_a_group_takes_the_gpus_of_all_its_processes() -> None:
    assert TrialResources(4, 0.5, 4).num_gpus == 0.5
    assert TrialResources(4, 1.0, 2, num_processes=3).num_gpus == 3.0


@pytest.mark.parametrize(
    ("config", "nodes", "message"),
    [
        (
            {"gpus_per_trial": 1},
            [Node(4, 0)],
            r"for 1 CPU and 1 GPU, .* have 4 CPU and 0 GPU",
        ),
        ({"cpus_per_trial": 99}, [Node(4, 0)], "asks for 99 CPU and 0 GPU"),
        ({"cpus_per_trial": 8, "gpus_per_trial": 1}, [Node(4, 1)] * 8, "no node can hold a trial"),
        ({}, [], "no node can hold a trial"),
    ],
)
def test_what_no_node_can_hold_is_refused(config: dict, nodes: list[Node], message: str) -> None:
    with pytest.raises(ClusterError, match=message):
        trial_resources(ResourcesConfig.model_validate(config), nodes)


def test_on_a_cluster_what_no_node_can_hold_yet_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hpo.execution.cluster.cluster_nodes", lambda: (Node(4, 0),))
    notes: list[str] = []
    config = ResourcesConfig(cpus_per_trial=8, gpus_per_trial=1)
    assert resources_or_hope(config, notes.append) == TrialResources(8, 1.0, 1, placement="pack")
    assert len(notes) == 1
    assert "no node can hold a trial: it asks for 8 CPU and 1 GPU" in notes[0]
    assert notes[0].endswith("waiting for such a node (resources.wait_hours)")
    assert resources_or_hope(ResourcesConfig(), notes.append) == TrialResources(1, 0.0, 4)
    impatient = ResourcesConfig(gpus_per_trial=1, wait_hours=0)
    with pytest.raises(ClusterError, match="no node can hold a trial"):
        resources_or_hope(impatient, notes.append)


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
                if answer is None:  # the server stays silent
                    time.sleep(8)
                else:
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        start = time.monotonic()
        with pytest.raises(ClusterError, match=f"{address}(:| is no Ray cluster)"):
            check_address(address)
        assert time.monotonic() - start < 10


@pytest.fixture(scope="module")
def ray_on_one_cpu() -> str:
    """What a program prints that may use one CPU and starts and ends a Ray of its own."""
    program = (
        "import os\n"
        "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        "from hpo.execution.cluster import cluster_nodes, connected\n"
        "with connected(None): print(f'CPUs: {sum(node.cpus for node in cluster_nodes()):g}')\n"
        "import ray\n"
        "try: ray.put(1)\n"
        "except ray.exceptions.RaySystemError: print('refused')\n"
        "print('connected:', ray.is_initialized())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_ray_of_our_own_has_the_cpus_that_this_process_may_use(ray_on_one_cpu: str) -> None:
    assert "CPUs: 1\n" in ray_on_one_cpu


def test_after_the_end_nobody_connects_to_another_ray_or_starts_one(ray_on_one_cpu: str) -> None:
    assert "refused\nconnected: False" in ray_on_one_cpu
