"""The share of a GPU that a search's trials take, by what its architectures need."""

from collections.abc import Sequence
from typing import Final

from hpo.execution.profile import Cost

SHARES: Final = (0.25, 0.3333, 0.5, 1.0)  # Ray counts in steps of 0.0001
RESERVE: Final = 1.15  # memory beyond what the first steps took, for fragmentation and validation


def share_for(cost: Cost) -> float:
    """The smallest share of a GPU that has the memory and the time for a training.

    A training that keeps the GPU busy for 40 % of the time leaves time for another such one.
    """
    if cost.gpu_bytes is None:
        return 0.0
    memory = RESERVE * cost.memory_bytes / cost.gpu_bytes
    # Where the utilisation is unknown, memory alone decides.
    needed = max(memory, cost.utilization or 0.0)
    return next((share for share in SHARES if needed <= share), 1.0)


def common_share(costs: Sequence[Cost]) -> float:
    """The share in which each of the trainings fits that fit into a GPU."""
    return max(share_for(cost) for cost in costs if cost.problem is None)
