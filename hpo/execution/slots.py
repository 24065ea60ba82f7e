"""How many workers a search may have now: it follows the cluster, and `resize`."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Final

from hpo.config.sections import ResourcesConfig
from hpo.execution.cluster import Node, TrialResources, num_trials_on
from hpo.execution.shared_gpus import ROUNDING

SECONDS_BETWEEN_COUNTS: Final = 2.0


class Slots:
    """Counts the workers that have room on the cluster, beside what others run there.

    On a cluster that others started, one worker more than has room is wanted. So a node that joins
    gets workers within seconds, and Ray's autoscaler sees that one more would be used. A worker of
    a group is placed without its processes; there only workers with room for them are wanted.

    Args:
        config: The search's resources.
        resources: What a trial takes.
        nodes: Returns the living nodes, with all that they have and with what is free there.
        asked_for: Returns the number of slots that `resize` asked for; None: it was not used.
        may_grow: Whether others started the cluster.
        clock: Returns seconds.

    Attributes:
        num: The trials that have room, and are allowed.
        num_wanted: The workers to ask Ray for.
        num_with_room: The workers that Ray may have room for, whatever is allowed.
        num_for_largest: The workers whose shares of a GPU the largest trial takes together.
    """

    def __init__(
        self,
        config: ResourcesConfig,
        resources: TrialResources,
        nodes: Callable[[], tuple[Sequence[Node], Sequence[Node]]],
        asked_for: Callable[[], int | None],
        *,
        may_grow: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._resources, self._nodes, self._asked_for = resources, nodes, asked_for
        self._most, self._clock = config.max_concurrent_trials, clock
        self._counts_free = may_grow and resources.group is None
        self._next_count, self._room = -math.inf, resources.num_slots
        self.num = self.num_wanted = self.num_with_room = resources.num_slots
        sizes = [one.gpus / resources.gpus for _, one in resources.by_architecture]
        self.num_for_largest = math.ceil(max(sizes, default=1) - ROUNDING)

    def count(self, num_placed: int) -> None:
        """Counts anew, every two seconds at most.

        Args:
            num_placed: Workers of this search that run, whose share of the nodes is not free.
        """
        now = self._clock()
        if now < self._next_count:
            return
        self._next_count = now + SECONDS_BETWEEN_COUNTS
        nodes, free = self._nodes()
        room = num_trials_on(nodes, self._resources)
        if self._counts_free:
            room = min(room, num_placed + num_trials_on(free, self._resources))
        # What Ray says is free may be a second old: room that is new must be there twice.
        room, self._room = min(room, self._room), room
        most = self._asked_for() or self._most or math.inf
        self.num = int(min(most, max(room, num_placed)))
        self.num_with_room = max(room + self._counts_free, num_placed, 1)
        self.num_wanted = int(min(most * self.num_for_largest, self.num_with_room))
