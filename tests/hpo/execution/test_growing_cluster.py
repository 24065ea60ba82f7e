"""A search's slots on a real cluster whose nodes come and go."""

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from nothing_worker import trains_nothing
from ray.cluster_utils import Cluster
from studies import create_study

from hpo.config.loading import load_search_config
from hpo.config.schema import SearchConfig
from hpo.engine.observer import SearchObserver
from hpo.errors import ClusterError, RunError
from hpo.execution import node_check
from hpo.execution.cluster import TrialResources
from hpo.execution.latency_node import latency_node, measured_on
from hpo.execution.node_check import check_nodes, what_nodes_share
from hpo.execution.tuning import run_trials
from hpo.run_folder import RunFolder
from hpo.study.study import SearchStudy
from hpo.study.trial import TrialStatus
from sgformer.data.image_cache import ImagesId
from sgformer.errors import DataError

pytestmark = pytest.mark.cluster

Search = tuple[SearchConfig, RunFolder, SearchStudy]


class Events(SearchObserver):
    """Keeps notes and the most trials at a time; calls a function as a trial ends."""

    def __init__(self, at_end_of: dict[int, Callable[[], Any]]) -> None:
        self._at_end_of, self._running = at_end_of, set[int]()
        self.notes: list[str] = []
        self.at_a_time: list[int] = []  # as each trial starts

    def note(self, text: str) -> None:
        self.notes.append(text)

    def trial_started(self, number: int, params: Any, num_epochs: int) -> None:
        self._running.add(number)
        self.at_a_time.append(len(self._running))

    def trial_ended(self, number: int, state: str, reason: str, value: float | None) -> None:
        self._running.discard(number)
        self._at_end_of.get(number, lambda: None)()


@pytest.fixture(scope="module")
def head() -> Iterator[Cluster]:
    """A head without CPUs, with this process connected to it."""
    cluster = Cluster(
        initialize_head=True,
        connect=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False},
    )
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def cluster(head: Cluster) -> Iterator[Cluster]:
    """The head, which is left without other nodes again."""
    yield head
    for node in list(head.worker_nodes):
        head.remove_node(node)


@pytest.fixture
def begin(search_file: Path, tmp_path: Path) -> Callable[..., Search]:
    """A function that makes the study and the run folder of a search with these settings."""

    def make(*overrides: str) -> Search:
        config = load_search_config(search_file, [*overrides, "scheduler={name: none}"])[0]
        run = RunFolder(tmp_path / "run")
        run.make()
        return config, run, create_study(f"sqlite:///{tmp_path / 'study.db'}", config)

    return make


def test_slots_follow_nodes_and_resize(cluster: Cluster, begin: Callable[..., Search]) -> None:
    config, run, study = begin("study.num_trials=40", "train.max_epochs=3")
    events = Events({
        4: lambda: cluster.add_node(num_cpus=1),
        24: lambda: run.ask_for_slots(1),
    })  # fmt: skip
    # The search begins before there is any node.
    node = [Path(sys.executable).with_name("ray"), "start", "--block", "--num-cpus=1"]
    late = subprocess.Popen([*node, f"--address={cluster.address}"], stdout=subprocess.DEVNULL)
    resources = TrialResources(1, 0.0, 1)
    worker = trains_nothing(seconds=0.3)
    try:
        run_trials(config, run, study, ImagesId("", ""), resources, events, worker, may_grow=True)
    finally:
        late.terminate()
        late.wait()
    assert [trial.state for trial in study.trials()] == [TrialStatus.COMPLETE] * 40
    assert events.at_a_time[:5] == [1] * 5
    assert max(events.at_a_time[:25]) == 2
    assert events.at_a_time[-5:] == [1] * 5


def test_latency_is_measured_on_the_node_that_is_named(
    cluster: Cluster, begin: Callable[..., Search], tmp_path: Path
) -> None:
    config, _, _ = begin(
        "study.constraints=[latency_ms <= 1000]", "train.model.name=test_resnet",
        "resources.latency_node=edge",
    )  # fmt: skip
    with pytest.raises(ClusterError, match=r"latency_node: no nodes .* named 'edge', by address"):
        latency_node("edge")
    cluster.add_node(num_cpus=0, resources={"edge": 1})
    cluster.wait_for_nodes()
    node, here = latency_node("edge"), ray.get_runtime_context().get_node_id()
    assert node not in {None, here}
    assert latency_node("localhost") is None
    with pytest.raises(ClusterError, match="latency_node: 2 nodes of the cluster are named"):
        latency_node(socket.gethostname())
    exported = tmp_path / "test_resnet at 32 pixels.onnx"
    exported.write_text("no model")
    with pytest.raises(DataError, match="not an ONNX model"):  # the file is what is timed
        measured_on(node, config, {}, 10, exported)
    costs = measured_on(node, config, {}, 10)
    assert 0 < costs["latency_ms"] < 1000
    assert costs["hostname"] == socket.gethostname()


def test_a_node_that_is_lost_as_it_is_asked_is_not_waited_for(
    cluster: Cluster, begin: Callable[..., Search], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, run, _ = begin()
    added = cluster.add_node(num_cpus=1)
    gone = next(node for node in ray.nodes() if node["Alive"] and "CPU" in node["Resources"])
    cluster.remove_node(added)
    # As this process saw the cluster just before.
    monkeypatch.setattr(node_check, "_nodes_for", lambda resources: iter([gone]))
    notes: list[str] = []
    shared = what_nodes_share(run, config.train.data, ImagesId("", ""))
    check_nodes(shared, TrialResources(1, 0.0, 1), notes.append)
    name = f"{gone['NodeManagerHostname']} ({gone['NodeManagerAddress']})"
    assert notes == [f"{name} has left the cluster"]


def test_what_cannot_be_placed_ends_as_a_pause(
    cluster: Cluster, begin: Callable[..., Search]
) -> None:
    config, run, study = begin("study.num_trials=4", "resources.wait_hours=0.001")
    with pytest.raises(RunError, match=r"no training could run for 0\.001 hours .* --resume"):
        run_trials(
            config, run, study, ImagesId("", ""), TrialResources(1, 0.0, 1), Events({}),
            trains_nothing(), may_grow=True,
        )  # fmt: skip
    assert study.trials() == ()
