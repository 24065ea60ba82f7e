"""The Ray cluster: connects to it, and computes the resources of a trial."""

import contextlib
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from hpo.config.search_space import Params
from hpo.config.sections import Placement, ResourcesConfig
from hpo.errors import ClusterError
from hpo.execution.interruption import keeping_the_handler
from hpo.execution.ray_settings import ray_settings
from sgformer.cpus import usable_cpus

# The versions in Ray's error text, of the cluster and of this process.
VERSIONS: Final = re.compile(r"(?:Ray|Python): (\S+)")


@dataclass(frozen=True)
class Node:
    """The numbers of CPUs and GPUs of one machine of the cluster, or of those that are free."""

    cpus: float
    gpus: float


@dataclass(frozen=True)
class GroupResources:
    """The processes that train a trial together: number, CPUs and GPUs of each, placement."""

    num_processes: int
    cpus: int
    gpus: float
    placement: Placement = "strict_pack"


@dataclass(frozen=True)
class TrialResources:
    """CPUs and GPUs of each process, trials at a time (slots), and processes of each trial.

    Where trials take different shares of a GPU, these are the resources of the smallest, which
    each worker has; `by_architecture` has those of each architecture, by its settings.
    """

    cpus: int
    gpus: float
    num_slots: int
    num_processes: int = 1
    placement: Placement = "strict_pack"
    by_architecture: tuple[tuple[Params, "TrialResources"], ...] = ()

    @property
    def group(self) -> GroupResources | None:
        """The processes that train a trial together; None: one process trains it alone."""
        if self.num_processes == 1:
            return None
        return GroupResources(self.num_processes, self.cpus, self.gpus, self.placement)

    @property
    def text(self) -> str:
        """What a trial takes, in words."""
        one = f"{self.cpus} CPU and {self.gpus:g} GPU"
        return one if self.num_processes == 1 else f"{self.num_processes} processes of {one}"

    @property
    def num_of_largest(self) -> int:
        """Trials of the largest share of a GPU that run at a time."""
        return min((one.num_slots for _, one in self.by_architecture), default=self.num_slots)

    @property
    def num_gpus(self) -> float:
        """GPUs of all processes of a trial; less than 1: a share of a GPU."""
        return self.gpus * self.num_processes


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connects to the cluster at HOST:PORT, or starts a Ray on this machine, for the block.

    A Ray of our own has the CPUs that this process may use; Ray by itself would count them all.

    Raises:
        ClusterError: The cluster refuses the connection.
    """
    # Ray reads these variables when it is imported.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Without this, a thread that calls Ray after the end would connect to any other cluster on
    # this machine, or start one.
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
    with ray_settings(address):
        import ray

        try:
            with keeping_the_handler():
                ray.init(
                    address=address or "local",
                    num_cpus=usable_cpus() if address is None else None,
                    include_dashboard=False if address is None else None,
                    logging_level=logging.ERROR,
                    log_to_driver=False,
                )
        except Exception as error:  # noqa: BLE001  a start that takes too long is an Exception
            raise ClusterError(
                f"cannot use the Ray cluster at {address or 'this machine'}: {_reason(error)}"
            ) from None
        try:
            yield
        finally:
            ray.shutdown()


def _reason(error: Exception) -> str:
    match VERSIONS.findall(str(error)):
        case [ray_there, python_there, ray_here, python_here]:
            return (
                f"it has Ray {ray_there} and Python {python_there}, and here are Ray {ray_here} "
                f"and Python {python_here}; both must be the same (--ray-address)"
            )
    return str(error).strip().splitlines()[0]


def cluster_nodes() -> tuple[Node, ...]:
    """The nodes of the connected cluster that are alive."""
    import ray

    return tuple(_node(node["Resources"]) for node in ray.nodes() if node["Alive"])


def kinds_of_gpus() -> list[str]:
    """The kinds of GPU of the living nodes, by Ray's names."""
    import ray

    names = {name for node in ray.nodes() if node["Alive"] for name in node["Resources"]}
    return sorted(name for name in names if name.startswith("accelerator_type:"))


def nodes_and_free() -> tuple[tuple[Node, ...], tuple[Node, ...]]:
    """The nodes of the connected cluster that are alive, and what is free on each of them."""
    from ray._private.state import available_resources_per_node

    return cluster_nodes(), tuple(map(_node, available_resources_per_node().values()))


def _node(resources: Mapping[str, float]) -> Node:
    return Node(resources.get("CPU", 0), resources.get("GPU", 0))


def local_nodes(config: ResourcesConfig) -> tuple[Node, ...]:
    """This machine as the only node; GPUs are counted (by torch) only if trials may use them."""
    num_cpus = usable_cpus()
    if config.gpus_per_trial == 0:
        return (Node(num_cpus, 0),)
    import torch

    return (Node(num_cpus, torch.cuda.device_count()),)


def resources_at(config: ResourcesConfig, address: str | None) -> TrialResources:
    """The resources of a trial on the cluster at HOST:PORT, or else on this machine.

    Raises:
        ClusterError: The nodes cannot hold a single trial, or the cluster refuses the connection.
    """
    return trial_resources(config, nodes_at(config, address))


def nodes_at(config: ResourcesConfig, address: str | None) -> tuple[Node, ...]:
    """The nodes of the cluster at HOST:PORT, or else this machine."""
    if address is None:
        return local_nodes(config)
    with connected(address):
        return cluster_nodes()


def resources_or_hope(config: ResourcesConfig, note: Callable[[str], None]) -> TrialResources:
    """The resources of a trial on a cluster that may grow: where none fits yet, one is to come.

    Ray does not tell what kinds of nodes its autoscaler may add.

    Raises:
        ClusterError: No node can hold a trial, and `wait_hours` is 0.
    """
    try:
        return trial_resources(config, cluster_nodes())
    except ClusterError as error:
        if not config.wait_hours:
            raise
        note(f"{error}; waiting for such a node (resources.wait_hours)")
    cpus, gpus = config.cpus_per_trial or 1, config.known_gpus or 0.0
    return TrialResources(cpus, gpus, 1, config.workers_per_trial, config.placement or "pack")


def trial_resources(config: ResourcesConfig, nodes: Sequence[Node]) -> TrialResources:
    """The resources of a trial, and how many trials the nodes can run at a time.

    A trial's processes run on one node, unless none can hold them all, or the config says so.

    Raises:
        ClusterError: The nodes cannot hold a single trial.
    """
    gpus = config.known_gpus
    if gpus is None:
        gpus = 1.0 if any(node.gpus for node in nodes) else 0.0
    cpus = config.cpus_per_trial
    if cpus is None:
        shares = [int(node.cpus / node.gpus * gpus) for node in nodes if node.gpus]
        cpus = max(1, min(shares, default=1)) if gpus else 1
    resources = TrialResources(cpus, gpus, 1, config.workers_per_trial)
    fits_on_one = num_trials_on(nodes, resources) > 0
    placement = config.placement or ("strict_pack" if fits_on_one else "pack")
    resources = replace(resources, placement=placement)
    num_slots = num_trials_on(nodes, resources)
    if num_slots == 0:
        most_cpus = max((node.cpus for node in nodes), default=0)
        most_gpus = max((node.gpus for node in nodes), default=0)
        many = config.workers_per_trial > 1
        asks = f"{config.workers_per_trial} processes of " if many else ""
        raise ClusterError(
            f"{'the nodes cannot' if many else 'no node can'} hold a trial: it asks for {asks}"
            f"{cpus} CPU and {gpus:g} GPU, and the largest nodes have {most_cpus:g} CPU and "
            f"{most_gpus:g} GPU (resources.cpus_per_trial, resources.gpus_per_trial; 0 trains on "
            f"CPUs{'; resources.workers_per_trial' if many else ''})"
        )
    return replace(resources, num_slots=min(num_slots, config.max_concurrent_trials or num_slots))


def num_trials_on(nodes: Sequence[Node], resources: TrialResources) -> int:
    """How many trials fit on the nodes at the same time."""
    nums = [_num_processes_on(node, resources.cpus, resources.gpus) for node in nodes]
    if resources.placement == "strict_pack":
        return sum(num // resources.num_processes for num in nums)
    return sum(nums) // resources.num_processes


def fills_gpus(nodes: Sequence[Node], resources: TrialResources) -> bool:
    """Whether the nodes have CPUs for as many such processes as fit on their GPUs."""
    return all(
        _num_processes_on(node, resources.cpus, resources.gpus)
        == int(node.gpus) * int(1 / resources.gpus)
        for node in nodes
        if node.gpus
    )


def _num_processes_on(node: Node, cpus: int, gpus: float) -> int:
    by_cpus = int(node.cpus // cpus)
    if not gpus:
        return by_cpus
    # A process's share of a GPU lies within one GPU. Of those that are free, one may be shared.
    num_whole = int(node.gpus)
    return min(by_cpus, num_whole * int(1 / gpus) + int((node.gpus - num_whole) / gpus))
