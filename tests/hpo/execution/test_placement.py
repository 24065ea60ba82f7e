import pytest

from hpo.config.schema import ResourcesConfig
from hpo.errors import RunError
from hpo.execution import placement
from hpo.execution.cluster import Node
from hpo.execution.placement import PlacementWatch


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[Node]:
    """The cluster's nodes, which a test may change; Ray itself does not run here."""
    nodes = [Node(4, 1)]
    monkeypatch.setattr(placement, "cluster_nodes", lambda: nodes)
    return nodes


def looked(config: ResourcesConfig, minutes: range, running: range) -> tuple[list[str], str]:
    """The notes, and the error in the end, of a look each minute."""
    now, notes = 0.0, list[str]()
    watch = PlacementWatch(config, notes.append, lambda: now)
    for minute in minutes:
        now = 60.0 * minute
        error = watch.look(minute in running)
        if error is not None:
            assert isinstance(error, RunError)
            return notes, str(error)
    return notes, ""


def test_trainings_that_run_need_no_note(nodes: list[Node]) -> None:
    assert looked(ResourcesConfig(), range(9999), range(9999)) == ([], "")


def test_a_lost_gpu_node_is_said_once_and_again_now_and_then(nodes: list[Node]) -> None:
    nodes[:] = [Node(2, 0)]
    config = ResourcesConfig(gpus_per_trial=1, wait_hours=1)
    notes, error = looked(config, range(200), range(10))
    assert len(notes) == 4
    assert "no training runs: no node can hold a trial: it asks for 1 CPU and 1 GPU" in notes[0]
    assert "resources.wait_hours" in notes[0]
    assert error.startswith("no training could run for 1 hours (resources.wait_hours): no node")
    assert error.endswith("continue with --resume")


def test_processes_that_fit_have_time_to_start_without_any_to_wait(nodes: list[Node]) -> None:
    config = ResourcesConfig(wait_hours=0)
    assert looked(config, range(1), range(0)) == ([], "")
    assert "no training could run for 0 hours" in looked(config, range(3), range(0))[1]
    nodes[:] = []
    assert "no training could run for 0 hours" in looked(config, range(1), range(0))[1]


def test_a_cluster_that_others_use_is_told_from_one_without_such_nodes(nodes: list[Node]) -> None:
    notes, _ = looked(ResourcesConfig(), range(2), range(0))
    assert len(notes) == 1
    assert "takes 4 CPU and 1 GPU, and others have what the nodes have" in notes[0]
