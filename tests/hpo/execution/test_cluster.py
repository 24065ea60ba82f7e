import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from hpo.config.loading import load_search_config
from hpo.config.schema import ResourcesConfig
from hpo.errors import ClusterError
from hpo.execution.cluster import Node, TrialResources, resources_or_hope, trial_resources

ROOT = Path(__file__).parents[3]
HEAD, GPU_NODE = Node(64, 0), Node(8, 2)
SHIPPED = sorted(Path(str(files("search_spaces"))).glob("*.yaml"))


@pytest.mark.parametrize(
    ("config", "nodes", "expected"),
    [
        ({}, [Node(4, 0)], TrialResources(1, 0.0, 4)),
        ({}, [Node(16, 2)], TrialResources(8, 1.0, 2)),
        ({}, [HEAD, GPU_NODE, GPU_NODE], TrialResources(4, 1.0, 4)),
        ({"gpus_per_trial": 0}, [Node(16, 2)], TrialResources(1, 0.0, 16)),
        ({"gpus_per_trial": "auto"}, [Node(16, 2)], TrialResources(8, 1.0, 2)),  # to measure it
        ({"gpus_per_trial": "auto"}, [Node(4, 0)], TrialResources(1, 0.0, 4)),
        ({"gpus_per_trial": 0.3333}, [Node(16, 1)], TrialResources(5, 0.3333, 3)),
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


# A driver that may use one CPU, starts two Rays of its own, one after the other, and looks at
# them. Its environment asks for no token authentication.
DRIVER = """
import os
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
from command_line import descendants
from hpo.execution.cluster import cluster_nodes, connected
from hpo.execution.cluster_access import check_address
from hpo.errors import ClusterError
from listening import listening

def token(): return os.environ["RAY_AUTH_TOKEN"]

for name in ("first", "second"):
    with connected(None):
        import ray
        print(f'CPUs: {sum(node.cpus for node in cluster_nodes()):g}')
        print("token:", ray.get(ray.remote(token).remote()))
        addresses = listening([os.getpid(), *descendants(os.getpid())])
        print("listening:", *sorted(map(str, addresses)))
        head = ray.get_runtime_context().gcs_address
        os.environ["RAY_AUTH_TOKEN"] = "wrong"
        try: check_address(head)
        except ClusterError as error: print("without its token:", error)
    print("then:", os.environ["RAY_AUTH_MODE"], os.environ.get("RAY_AUTH_TOKEN"))
try: ray.put(1)
except ray.exceptions.RaySystemError: print("refused")
print("connected:", ray.is_initialized())
"""


@pytest.fixture(scope="module")
def own_rays() -> Iterator[tuple[str, Path]]:
    """What the driver prints, and its home and temporary folder."""
    home = Path(tempfile.mkdtemp(prefix="hpo-", dir="/tmp"))  # short, for Ray's sockets
    environment = os.environ | {
        "HOME": str(home), "RAY_TMPDIR": str(home), "RAY_AUTH_MODE": "disabled",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")]),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", DRIVER], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    yield done.stdout, home
    shutil.rmtree(home)


def test_a_ray_of_our_own_has_the_cpus_that_this_process_may_use(own_rays: tuple) -> None:
    assert "CPUs: 1\n" in own_rays[0]


def test_a_ray_of_our_own_listens_on_loopback_only(own_rays: tuple) -> None:
    assert own_rays[0].count("listening: 127.0.0.1\n") == 2


def test_a_ray_of_our_own_has_a_token_that_no_file_holds(own_rays: tuple) -> None:
    output, folder = own_rays
    tokens = re.findall(r"token: (\w{64})\n", output)
    assert len(set(tokens)) == 2
    assert output.count("refuses the token of RAY_AUTH_TOKEN") == 2
    assert output.count("then: disabled None") == 2
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert any("session_" in str(path) for path in files)
    for path in files:
        content = path.read_bytes()
        assert not any(token.encode() in content for token in tokens), path


def test_after_the_end_nobody_connects_to_another_ray_or_starts_one(own_rays: tuple) -> None:
    assert "refused\nconnected: False" in own_rays[0]
