"""The node of the cluster that measures the latency of exported files: resources.latency_node."""

import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from hpo.config.schema import SearchConfig
from hpo.config.search_space import Params
from hpo.engine.architectures import measure_architecture
from hpo.errors import ClusterError, RunError
from hpo.execution.cluster import connected
from sgformer.errors import listed

LOOPBACK: Final = ("127.0.0.1", "localhost")


def check_latency_node(name: str | None, address: str | None) -> None:
    """Checks the name against the cluster at HOST:PORT, or else this machine.

    Raises:
        ClusterError: There is no such node, or more than one, or the cluster cannot be used.
    """
    if name is None:
        return
    if address is None:
        _check_here(name)
        return
    with connected(address):
        latency_node(name)


def latency_node(name: str | None) -> str | None:
    """The id of the node of that name in the connected cluster; None: this process's own node.

    Raises:
        ClusterError: The cluster has no such node, or more than one.
    """
    if name is None:
        return None
    import ray

    own = ray.get_runtime_context().get_node_id()
    nodes = [node for node in ray.nodes() if node["Alive"]]
    found = [node["NodeID"] for node in nodes if name in _names(node, own)]
    if len(found) == 1:
        return None if found[0] == own else str(found[0])
    addresses = listed(sorted(str(node["NodeManagerAddress"]) for node in nodes))
    raise ClusterError(
        f"resources.latency_node: {len(found) or 'no'} nodes of the cluster are named {name!r}, "
        "by address, host name or resource; it takes one that is alive, and their addresses are "
        f"{addresses}"
    )


def _check_here(name: str) -> None:
    """Raises ClusterError if the name is not one of this machine, which is to be the only node."""
    known = (socket.gethostname(), *LOOPBACK)
    if name not in known:
        raise ClusterError(
            f"resources.latency_node: {name!r} is not this machine, whose names are "
            f"{', '.join(known)}; leave it out, or search on a cluster (--ray-address)"
        )


def _names(node: Mapping[str, Any], own: str) -> set[str]:
    """What a node may be called: its address, host name, and resources of the user's making."""
    names = {str(node["NodeManagerAddress"]), str(node["NodeManagerHostname"])}
    return names | {*node["Resources"]} | ({*LOOPBACK} if node["NodeID"] == own else set())


def measured_on(
    node: str | None,
    config: SearchConfig,
    params: Params,
    num_classes: int,
    exported: Path | None = None,
) -> dict[str, Any]:
    """What `measure_architecture` finds on a node of the connected cluster.

    Its task takes none of the node's CPUs, so that it waits for no training there.

    Args:
        node: The node's id; None: this process measures.
        config: The config of the search.
        params: Params of a configuration with this architecture.
        num_classes: The number of classes.
        exported: The architecture's exported file; None: it is exported where it is measured.

    Raises:
        RunError: The node, or its process, has died.
    """
    if node is None:
        return measure_architecture(config, params, num_classes, exported)
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    files = {} if exported is None else _content_of(exported)
    there: Any = NodeAffinitySchedulingStrategy(node, soft=False)
    task: Any = ray.remote(num_cpus=0, scheduling_strategy=there)(_measure)
    try:
        costs: dict[str, Any] = ray.get(task.remote(config, params, num_classes, files))
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[0]
        raise RunError(
            f"measuring an architecture on {config.resources.latency_node} broke: {reason}; "
            "--resume retries (resources.latency_node)"
        ) from error
    return costs


def _content_of(exported: Path) -> dict[str, bytes]:
    """The content of an architecture's files, by name, the float32 model first."""
    others = sorted(exported.parent.glob(f"{exported.stem}.*"))
    return {file.name: file.read_bytes() for file in dict.fromkeys((exported, *others))}


def _measure(
    config: SearchConfig, params: Params, num_classes: int, files: Mapping[str, bytes]
) -> dict[str, Any]:
    """Runs in a process of Ray on the node, which need not see the run's folder."""
    with tempfile.TemporaryDirectory(prefix="sgformer-export-") as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        first = next(iter(files), None)
        exported = None if first is None else Path(folder) / first
        return measure_architecture(config, params, num_classes, exported)
