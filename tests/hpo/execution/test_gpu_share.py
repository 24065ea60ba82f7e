"""Tests of a trial's share of a GPU; costs are pretended, since there is no GPU here."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpo.config.loading import load_search_config
from hpo.config.schema import ResourcesConfig
from hpo.errors import RunError
from hpo.execution import gpu_share
from hpo.execution.cluster import Node, TrialResources
from hpo.execution.gpu_share import measured_resources, share_for, with_share
from hpo.execution.profile import Cost, Profile

GIB = 2**30
WHOLE = TrialResources(cpus=8, gpus=1.0, num_slots=2)


def cost(gib: float, busy: float | None, problem: str | None = None, of: int = 80) -> Cost:
    return Cost({}, 1.0, int(gib * GIB), "cuda of node", 64, of * GIB, busy, problem)


@pytest.mark.parametrize(
    ("one", "share"),
    [
        (cost(2, 0.1), 0.25),
        (cost(17, 0.1), 0.25),
        (cost(18, 0.1), 0.3333),  # with a reserve, 18 GiB are more than a quarter of 80
        (cost(30, 0.1), 0.5),
        (cost(40, 0.1), 1.0),
        (cost(79, 0.1), 1.0),
        (cost(2, 0.3), 0.3333),
        (cost(2, 0.45), 0.5),
        (cost(2, 0.95), 1.0),
        (cost(2, None), 0.25),
        (cost(2, 0.1, of=4), 1.0),
        (Cost({}, 1.0, GIB, "cpu of node", 64), 0.0),
    ],
)
def test_a_share_has_the_memory_and_the_time_for_a_training(one: Cost, share: float) -> None:
    assert share_for(one) == share


@pytest.mark.parametrize(
    ("costs", "share"),
    [
        ([cost(2, 0.1), cost(3, 0.2)], 0.25),
        ([cost(2, 0.1), cost(30, 0.2)], 0.5),
        ([cost(2, 0.1), cost(0, None, "does not fit")], 0.25),
    ],
)
def test_a_search_has_the_share_in_which_every_architecture_fits(
    costs: list[Cost], share: float
) -> None:
    asked = ResourcesConfig(gpus_per_trial="auto", max_concurrent_trials=3)
    found = with_share(asked, Profile(costs))
    assert found == asked.model_copy(update={"gpus_per_trial": share})


class Told:
    """An observer that keeps what it was told."""

    def __init__(self) -> None:
        self.said: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self.said.append((name, *arguments))


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the costs that a measurement finds, on a cluster of two GPUs and 16 CPUs."""

    def set_costs(*costs: Cost) -> None:
        def found(*_: object) -> Iterator[Cost]:
            yield from costs

        monkeypatch.setattr(gpu_share, "measured_on_cluster", found)
        monkeypatch.setattr(gpu_share, "cluster_nodes", lambda: (Node(16, 2),))

    return set_costs


def test_small_models_share_a_gpu_and_its_cpus(pretend: Any, search_file: Path) -> None:
    config = load_search_config(search_file, ["resources={gpus_per_trial: auto}"])[0]
    pretend(cost(2, 0.2), cost(10, 0.4))
    told = Told()
    assert measured_resources(config, WHOLE, told) == TrialResources(4, 0.5, 4)
    assert told.said[0] == ("phase", "measuring how much of a GPU a trial needs")
    assert told.said[1:3] == [("step", 1, 1), ("step", 2, 1)]  # the space has one architecture
    note = "resources.gpus_per_trial auto: a trial takes 4 CPU and 0.5 GPU; trials at a time: 4"
    assert told.said[3] == ("note", note)


def test_large_models_do_not_share(pretend: Any, search_file: Path) -> None:
    config = load_search_config(search_file, ["resources={gpus_per_trial: auto}"])[0]
    pretend(cost(60, 0.9))
    assert measured_resources(config, WHOLE, Told()) == WHOLE
    pretend(cost(0, None, "not even one image at a time fits"))
    with pytest.raises(RunError, match="not even one image at a time fits"):
        measured_resources(config, WHOLE, Told())
