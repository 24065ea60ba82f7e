"""The share of a GPU that a search's trials take (`gpus_per_trial: auto`), by what they need."""

from typing import Final

from hpo.config.schema import SearchConfig
from hpo.config.sections import ResourcesConfig
from hpo.engine.observer import SearchObserver
from hpo.execution.cluster import TrialResources, cluster_nodes, trial_resources
from hpo.execution.profile import NUM_IMAGES, Cost, Profile, architectures, measured_on_cluster
from sgformer.data.few_images import few_images
from sgformer.data.image_folder import read_image_folder

SHARES: Final = (0.25, 0.3333, 0.5, 1.0)  # Ray counts in steps of 0.0001
RESERVE: Final = 1.15  # memory beyond what the first steps took, for fragmentation and validation


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


def with_share(asked: ResourcesConfig, profile: Profile) -> ResourcesConfig:
    """The resources, with the smallest share of a GPU in which every architecture fits.

    All trials take the same, since one worker trains many of them. An architecture that does not
    fit into a whole GPU does not count.
    """
    share = max(map(share_for, profile.sound))
    return asked.model_copy(update={"gpus_per_trial": share})


def measured_resources(
    config: SearchConfig, whole: TrialResources, observer: SearchObserver
) -> TrialResources:
    """What a trial takes, by a few steps of each architecture on the connected Ray.

    Args:
        config: The config of the search.
        whole: A trial's resources with a whole GPU.
        observer: Is told how far it is, and the result.

    Raises:
        InputError: A training cannot be made, or no image can be read.
        RunError: A measurement broke, or no architecture can be trained.
    """
    observer.phase("measuring how much of a GPU a trial needs")
    few = few_images(read_image_folder(config.train.data), NUM_IMAGES)
    costs, total = list[Cost](), len(architectures(config))
    for cost in measured_on_cluster(config, few, whole):
        costs.append(cost)
        observer.step(len(costs), total)
    resources = trial_resources(with_share(config.resources, Profile(costs)), cluster_nodes())
    observer.note(
        f"resources.gpus_per_trial auto: a trial takes {resources.text}; trials at a time: "
        f"{resources.num_slots}"
    )
    return resources
