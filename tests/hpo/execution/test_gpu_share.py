"""Tests of a trial's share of a GPU; costs are pretended, since there is no GPU here."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpo.config.loading import load_search_config
from hpo.config.schema import ResourcesConfig, SearchConfig
from hpo.errors import RunError
from hpo.execution import gpu_share
from hpo.execution.cluster import Node, TrialResources
from hpo.execution.gpu_share import (
    measured_shares,
    resources_for,
    settled_resources,
    share_for,
    with_shares,
)
from hpo.execution.profile import Cost, architectures

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


def resources(
    *shares: float, nodes: tuple[Node, ...] = (Node(16, 2),), **asked: Any
) -> TrialResources:
    """What trials take, where the architectures have batches of 1, 2, ... and these shares."""
    measured = [({"optimizer.batch_size": i}, share) for i, share in enumerate(shares, 1)]
    return with_shares(ResourcesConfig(gpus_per_trial="auto", **asked), measured, nodes)


def test_architectures_that_need_alike_take_alike() -> None:
    assert resources(0.5, 0.5) == TrialResources(4, 0.5, 4)
    assert resources(1.0) == WHOLE


def test_a_worker_has_the_smallest_share_and_each_architecture_its_own() -> None:
    found = resources(0.25, 1.0, 0.25, max_concurrent_trials=3)
    small, large = TrialResources(2, 0.25, 3), WHOLE
    assert [took for _, took in found.by_architecture] == [small, large, small]
    assert (found.cpus, found.gpus, found.num_slots) == (2, 0.25, 3)
    assert found.num_of_largest == 2


@pytest.mark.parametrize(
    ("cpus", "asked", "shares"),
    [
        (4, None, [0.25, 1.0]),
        (3, None, [0.3333, 1.0]),  # three workers a GPU, for want of CPUs
        (2, None, [0.5, 1.0]),
        (1, None, []),
        (16, 8, [0.5, 1.0]),
        (16, 16, []),
    ],
)
def test_enough_workers_for_a_whole_gpu_have_cpus(
    cpus: int, asked: int | None, shares: list[float]
) -> None:
    found = resources(0.25, 1.0, nodes=(Node(cpus, 1),), cpus_per_trial=asked)
    assert [took.gpus for _, took in found.by_architecture] == shares


@pytest.mark.parametrize(("size", "share"), [(1, 0.25), (8, 0.25), (9, 0.5), (32, 0.5), (99, 0.5)])
def test_between_two_measured_sizes_a_training_has_the_share_of_the_larger(
    search_file: Path, size: int, share: float
) -> None:
    config = load_search_config(search_file, [f"train.optimizer.batch_size={size}"])[0]
    shares = [({"optimizer.batch_size": 8}, 0.25), ({"optimizer.batch_size": 32}, 0.5)]
    found = with_shares(ResourcesConfig(gpus_per_trial="auto"), shares, [Node(16, 2)])
    assert resources_for(config.train, found).gpus == share
    assert resources_for(config.train, WHOLE) == WHOLE


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
        monkeypatch.setattr(gpu_share, "kinds_of_gpus", lambda: ["accelerator_type:A100"])

    return set_costs


MODELS = "space.model.name={type: categorical, choices: [sg_former_pico, sg_former_nano]}"


def settled(config: SearchConfig, told: Told) -> TrialResources:
    return settled_resources(config, measured_shares(config, WHOLE, None, told), told)


def test_models_that_need_alike_share_a_gpu_and_its_cpus(pretend: Any, search_file: Path) -> None:
    config = load_search_config(search_file, ["resources={gpus_per_trial: auto}"])[0]
    pretend(cost(2, 0.4))
    told = Told()
    assert settled(config, told) == TrialResources(4, 0.5, 4)
    assert told.said[0] == ("phase", "measuring how much of a GPU a trial needs")
    assert told.said[1] == ("step", 1, 1)  # the space has one architecture
    note = "resources.gpus_per_trial auto: a trial takes 4 CPU and 0.5 GPU; trials at a time: 4"
    assert told.said[2] == ("note", note)


def test_small_models_share_a_gpu_and_large_ones_do_not(pretend: Any, search_file: Path) -> None:
    config = load_search_config(search_file, ["resources={gpus_per_trial: auto}", MODELS])[0]
    small, large = architectures(config)
    pretend(replace(cost(2, 0.1), settings=small), replace(cost(60, 0.9), settings=large))
    told = Told()
    found = settled(config, told)
    assert found.by_architecture == ((small, TrialResources(2, 0.25, 8)), (large, WHOLE))
    assert told.said[-1] == (
        "note",
        "resources.gpus_per_trial auto: sg_former_pico at 32 pixels, batches of 20: 2 CPU and "
        "0.25 GPU; sg_former_nano at 32 pixels, batches of 20: 8 CPU and 1 GPU; "
        "trials at a time: up to 8",
    )


def test_what_does_not_fit_does_not_count(pretend: Any, search_file: Path) -> None:
    config = load_search_config(search_file, ["resources={gpus_per_trial: auto}", MODELS])[0]
    pretend(cost(2, 0.1), cost(0, None, "not even one image at a time fits"))
    assert settled(config, Told()) == TrialResources(2, 0.25, 8)
    pretend(cost(0, None, "not even one image at a time fits"))
    with pytest.raises(RunError, match="not even one image at a time fits"):
        settled(config, Told())


def test_known_shares_hold_for_the_same_kinds_of_gpu(
    pretend: Any, search_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_search_config(search_file, ["resources={gpus_per_trial: auto}"])[0]
    pretend(cost(2, 0.4))
    first = measured_shares(config, WHOLE, None, Told())
    pretend(cost(2, 0.9))
    kept, told = json.loads(json.dumps(first)), Told()  # as a study gives them back
    assert measured_shares(config, WHOLE, kept, told) == first
    assert told.said == []
    monkeypatch.setattr(gpu_share, "kinds_of_gpus", lambda: ["accelerator_type:H200"])
    assert measured_shares(config, WHOLE, kept, Told())["shares"][0][1] == 1.0
