"""The share of a GPU that each architecture's trials take (`gpus_per_trial: auto`)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from hpo.config.schema import SearchConfig
from hpo.config.search_space import Params
from hpo.config.sections import ResourcesConfig
from hpo.engine.observer import SearchObserver
from hpo.execution.cluster import (
    Node,
    TrialResources,
    cluster_nodes,
    fills_gpus,
    kinds_of_gpus,
    trial_resources,
)
from hpo.execution.profile import (
    NUM_IMAGES,
    Cost,
    Profile,
    architecture_name,
    architectures,
    distance,
    measured_on_cluster,
)
from sgformer.config import TrainConfig
from sgformer.data.few_images import few_images
from sgformer.data.image_folder import read_image_folder

SHARES: Final = (0.25, 0.3333, 0.5, 1.0)  # Ray counts in steps of 0.0001
RESERVE: Final = 1.15  # memory beyond what the first steps took, for fragmentation and validation
# Between two measured sizes a training has the share of the larger one.
OF_LESS: Final = 100.0

Shares = Sequence[tuple[Params, float]]  # the share of each architecture, by its settings


def share_for(cost: Cost) -> float:
    """The smallest of SHARES that has the memory and the time for a training; 0 on a CPU.

    A training that keeps the GPU busy for 40 % of the time leaves time for another such one.
    """
    if cost.gpu_bytes is None:
        return 0.0
    memory = RESERVE * cost.memory_bytes / cost.gpu_bytes
    # Where the utilisation is unknown, memory alone decides.
    needed = max(memory, cost.utilization or 0.0)
    return next((share for share in SHARES if needed <= share), 1.0)


def shares_of(profile: Profile) -> Shares:
    """The share of each architecture that fits into a whole GPU."""
    return tuple((cost.settings, share_for(cost)) for cost in profile.sound)


def with_shares(asked: ResourcesConfig, shares: Shares, nodes: Sequence[Node]) -> TrialResources:
    """A trial's resources, by architecture where these take different shares of a GPU.

    Every worker has the smallest share of which enough fit on a node, by its CPUs, to use all of
    its GPUs: so a trial that takes a whole GPU gets one by letting the others of that GPU idle.
    """

    def of(share: float) -> TrialResources:
        return trial_resources(asked.model_copy(update={"gpus_per_trial": share}), nodes)

    least, most = (pick(share for _, share in shares) for pick in (min, max))
    sizes = [share for share in SHARES if least <= share < most]
    least = next((share for share in sizes if fills_gpus(nodes, of(share))), most)
    if least == most:
        return of(most)
    by_architecture = tuple((settings, of(max(least, share))) for settings, share in shares)
    return replace(of(least), by_architecture=by_architecture)


def resources_for(train: TrainConfig, resources: TrialResources) -> TrialResources:
    """What a training takes: the resources of the measured architecture that is most like it."""
    if not resources.by_architecture:
        return resources
    return min(
        resources.by_architecture, key=lambda one: distance(train, one[0], of_less=OF_LESS)
    )[1]


def measured_shares(
    config: SearchConfig,
    whole: TrialResources,
    known: Mapping[str, Any] | None,
    observer: SearchObserver,
) -> dict[str, Any]:
    """The shares of the space's architectures, by a few steps of each on the connected Ray.

    Args:
        config: The config of the search.
        whole: A trial's resources with a whole GPU.
        known: What an earlier run of the search measured; it holds for the same kinds of GPU.
        observer: Is told how far it is.

    Returns:
        The kinds of GPU, and the share of each architecture, as the study keeps them.

    Raises:
        InputError: A training cannot be made, or no image can be read.
        RunError: A measurement broke, or no architecture can be trained.
    """
    kinds = kinds_of_gpus()
    if known is not None and known["gpus"] == kinds:
        return dict(known)
    observer.phase("measuring how much of a GPU a trial needs")
    few = few_images(read_image_folder(config.train.data), NUM_IMAGES)
    costs, total = list[Cost](), len(architectures(config))
    for cost in measured_on_cluster(config, few, whole):
        costs.append(cost)
        observer.step(len(costs), total)
    return {"gpus": kinds, "shares": [list(one) for one in shares_of(Profile(costs))]}


def settled_resources(
    config: SearchConfig, measured: Mapping[str, Any], observer: SearchObserver
) -> TrialResources:
    """What trials take on the connected Ray, by their measured shares, which it tells."""
    shares = [(settings, share) for settings, share in measured["shares"]]
    resources = with_shares(config.resources, shares, cluster_nodes())
    named = {architecture_name(one, config.space): took for one, took in resources.by_architecture}
    each = "; ".join(f"{name}: {took.text}" for name, took in named.items())
    told = each or f"a trial takes {resources.text}"
    observer.note(
        f"resources.gpus_per_trial auto: {told}; trials at a time: "
        f"{'up to ' if each else ''}{resources.num_slots}"
    )
    return resources
