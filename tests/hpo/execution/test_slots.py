import pytest

from hpo.config.schema import ResourcesConfig
from hpo.execution.cluster import Node, TrialResources
from hpo.execution.slots import Slots

ONE_CPU, HALF_GPU, PAIR = (
    TrialResources(1, 0.0, 2),
    TrialResources(1, 0.5, 2),
    TrialResources(1, 0.0, 2, num_processes=2),
)


class Cluster:
    """Nodes that come and go, with a clock that passes the time between two counts."""

    def __init__(self, *nodes: Node) -> None:
        self.nodes, self.free, self.now = list(nodes), list(nodes), 0.0
        self.asked: int | None = None

    def slots(
        self, resources: TrialResources, most: int | None = None, *, may_grow: bool = True
    ) -> Slots:
        config = ResourcesConfig(max_concurrent_trials=most)
        return Slots(
            config,
            resources,
            lambda: (self.nodes, self.free),
            lambda: self.asked,
            may_grow=may_grow,
            clock=lambda: self.now,
        )

    def counted(self, slots: Slots, num_placed: int) -> tuple[int, int]:
        """Slots, and workers wanted, after what is free has been there twice."""
        for _ in range(2):
            self.now += 3
            slots.count(num_placed)
        return slots.num, slots.num_wanted


def test_a_node_that_joins_gives_slots_and_one_that_leaves_takes_them() -> None:
    cluster = Cluster(Node(2, 0))
    slots = cluster.slots(ONE_CPU)
    assert cluster.counted(slots, 0) == (2, 3)
    cluster.nodes, cluster.free = [Node(2, 0), Node(4, 0)], [Node(0, 0), Node(4, 0)]
    assert cluster.counted(slots, 2) == (6, 7)
    cluster.nodes, cluster.free = [Node(4, 0)], [Node(0, 0)]
    assert cluster.counted(slots, 4) == (4, 5)


def test_what_others_use_is_not_counted() -> None:
    cluster = Cluster(Node(8, 4))
    cluster.free = [Node(5, 1.5)]
    assert cluster.counted(cluster.slots(HALF_GPU), 0) == (3, 4)
    assert cluster.counted(cluster.slots(ONE_CPU), 0) == (5, 6)


def test_room_that_is_seen_only_once_is_not_believed() -> None:
    cluster = Cluster(Node(4, 0))
    slots = cluster.slots(ONE_CPU)
    cluster.now += 3
    slots.count(2)  # Ray still says that the two workers' CPUs are free
    assert slots.num == 2


@pytest.mark.parametrize(("most", "asked", "expected"), [
    (3, None, (3, 3)), (3, 1, (1, 1)), (3, 6, (6, 6)), (None, 99, (8, 9)), (None, None, (8, 9)),
])  # fmt: skip
def test_never_more_than_was_asked_for(
    most: int | None, asked: int | None, expected: tuple[int, int]
) -> None:
    cluster = Cluster(Node(8, 0))
    cluster.asked = asked
    assert cluster.counted(cluster.slots(ONE_CPU, most), 0) == expected


def test_an_empty_cluster_is_still_asked_for_a_worker() -> None:
    cluster = Cluster()
    assert cluster.counted(cluster.slots(ONE_CPU), 0) == (0, 1)


def test_a_ray_of_our_own_is_asked_for_what_it_has() -> None:
    cluster = Cluster(Node(2, 0))
    assert cluster.counted(cluster.slots(ONE_CPU, may_grow=False), 0) == (2, 2)


def test_a_groups_worker_is_wanted_only_where_its_processes_fit() -> None:
    cluster = Cluster(Node(4, 0))
    slots = cluster.slots(PAIR)
    assert cluster.counted(slots, 0) == (2, 2)
    cluster.nodes.append(Node(3, 0))
    assert cluster.counted(slots, 2) == (3, 3)


def test_a_large_trial_is_given_the_workers_whose_share_it_takes() -> None:
    sizes = (({}, TrialResources(1, 0.25, 8)), ({}, TrialResources(4, 1.0, 2)))
    small = TrialResources(1, 0.25, 2, by_architecture=sizes)
    cluster = Cluster(Node(16, 4))
    slots = cluster.slots(small, most=2, may_grow=False)
    assert cluster.counted(slots, 0) == (2, 8)
    assert (slots.num_for_largest, slots.num_with_room) == (4, 16)
    assert cluster.counted(cluster.slots(small, may_grow=False), 0) == (16, 16)
