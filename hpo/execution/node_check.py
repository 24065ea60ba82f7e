"""Checks, before the trials start, that every node of a cluster sees the run's folder and data."""

import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from hpo.errors import ClusterError
from hpo.execution.cluster import TrialResources
from hpo.run_folder import RunFolder
from hpo.run_store import RunStore
from sgformer.data.image_cache import ImagesId, open_cache
from sgformer.data_config import DataConfig, encoder_folder

# A name that a node has not looked up before is seen at once, also on NFS.
SECONDS_TO_LOOK: Final = 10.0
SECONDS_TO_ANSWER: Final = 60.0  # Ray starts a process on each node
PARTS: Final = ("train", "val", "test")  # of a data set, as folders, shards or parquet files
MOST_PARTS: Final = 100


@dataclass(frozen=True)
class Shared:
    """What every node must see under the same path.

    Attributes:
        run_dir: The run's folder.
        mark: Its mark, as the driver sees it.
        data: Where the images are, and how they are decoded.
        images: Identifies the images of the search.
        parts: Names in the folder of the images, as the driver sees it; () for a manifest.
        store: Where checkpoints are kept in place of the run's folder, which then need not be
            seen.
    """

    run_dir: Path
    mark: str
    data: DataConfig
    images: ImagesId
    parts: tuple[str, ...]
    store: RunStore | None = None


def what_nodes_share(
    run: RunFolder, data: DataConfig, images: ImagesId, store: RunStore | None = None
) -> Shared:
    """What the nodes of a search must see, as this machine sees it."""
    root = data.data_dir
    names = (path.name for path in root.iterdir()) if root is not None and root.is_dir() else ()
    parts = tuple(islice((name for name in names if name.startswith(PARTS)), MOST_PARTS))
    return Shared(run.path.absolute(), run.mark(), data.for_decoding(), images, parts, store)


def check_nodes(shared: Shared, resources: TrialResources, note: Callable[[str], None]) -> None:
    """Asks all nodes of the connected cluster that may train, at the same time.

    Args:
        shared: What each node must see.
        resources: What a process of a trial takes; nodes that cannot hold one are not asked.
        note: Is called with the names of nodes that do not answer, or have left the cluster
            meanwhile; the workers of those that come back look again.

    Raises:
        ClusterError: A node lacks the run's folder or the images; names all such nodes.
    """
    import ray

    nodes = {_ask(node, shared): node for node in _nodes_for(resources)}
    if not nodes:  # they are still to come
        return
    answered, silent = ray.wait(
        list(nodes), num_returns=len(nodes), timeout=SECONDS_TO_ANSWER, fetch_local=False
    )
    for task in silent:
        ray.cancel(task, force=True)
        note(f"{_name_of(nodes[task])} has not answered for {SECONDS_TO_ANSWER:.0f} seconds")
    # Ray takes some time to notice that a node is lost, so one that is lost may have been asked.
    alive, faults = {node["NodeID"] for node in _nodes_alive()}, []
    for task in answered:
        name, fault = _name_of(nodes[task]), _fault_of(task)
        if fault is not None and nodes[task]["NodeID"] not in alive:
            note(f"{name} has left the cluster")
        elif fault is not None:
            faults.append(f"{name}: {fault}")
    if faults:
        count = f"{len(faults)} of {len(nodes)} nodes"
        raise ClusterError(
            f"{count} cannot train for this search:\n" + "\n".join(f"  {f}" for f in faults)
        )


def fault_here(shared: Shared) -> str | None:
    """What this machine lacks, as text; None: nothing."""
    faults = [missing_images(shared.data, shared.images, shared.parts)]
    try:
        if shared.store is not None:
            shared.store.check()
        else:
            RunFolder(shared.run_dir).check_mark(shared.mark, SECONDS_TO_LOOK)
    except ClusterError as error:
        faults.append(str(error))
    return "; ".join(filter(None, faults)) or None


def missing_images(
    data: DataConfig, images: ImagesId | None, parts: tuple[str, ...] = ()
) -> str | None:
    """What this machine lacks of the images, as text; None: nothing, or it has them decoded."""
    if data.features is not None and not data.features.exists():
        where = f"are not there on {socket.gethostname()}; all nodes need them (--features)"
        return f"the features {data.features} {where}"
    encoder = encoder_folder(data)
    if encoder is not None and not encoder.is_dir():
        where = f"is not there on {socket.gethostname()}; all nodes need it"
        return f"the encoder of texts {encoder} {where} (train.data.text_encoder)"
    root = data.data_dir
    if root is None:
        return None
    if not root.exists():
        fault = f"the images {root} are not there"
    elif root.is_dir() and not any(root.iterdir()):
        fault = f"the folder of the images {root} is empty"
    else:
        gone = [name for name in parts if not (root / name).exists()]
        fault = f"the folder of the images {root} lacks {', '.join(gone[:3])}" if gone else ""
    if not fault or (images is not None and _has_decoded(data, images)):
        return None
    return f"{fault} on {socket.gethostname()}; all nodes need them (--data-dir)"


def _has_decoded(data: DataConfig, images: ImagesId) -> bool:
    try:
        return open_cache(data, images).num_not_stored == 0
    except OSError:
        return False


def _nodes_for(resources: TrialResources) -> Iterator[Mapping[str, Any]]:
    """The living nodes that may run a process of a trial, or the worker that leads a group."""
    for node in _nodes_alive():
        has = node["Resources"]
        is_enough = has.get("CPU", 0) >= resources.cpus and has.get("GPU", 0) >= resources.gpus
        if is_enough or resources.group is not None:
            yield node


def _nodes_alive() -> list[Mapping[str, Any]]:
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def _name_of(node: Mapping[str, Any]) -> str:
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"


def _ask(node: Mapping[str, Any], shared: Shared) -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    place = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    # max_calls: the process ends with the check, and leaves its memory to the trials.
    task = ray.remote(num_cpus=0, max_calls=1, max_retries=0)(fault_here)
    return task.options(scheduling_strategy=place).remote(shared)


def _fault_of(task: Any) -> str | None:
    import ray

    try:
        fault: str | None = ray.get(task)
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None) or error
        reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        return f"the check could not run there: {reason}"
    return fault
