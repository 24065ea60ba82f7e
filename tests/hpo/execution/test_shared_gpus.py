"""Tests of which worker runs the next trial, where trials take different shares of a GPU."""

import random

import pytest

from hpo.execution.shared_gpus import SharedGpus
from hpo.study.trial import Proposal

QUARTER, THIRD, HALF, WHOLE = 0.25, 0.3333, 0.5, 1.0


class Search:
    """Workers that ask for trials, whose shares are given; the first is trial 0."""

    def __init__(self, shares: list[float], per_gpu: int = 4, num_gpus: int = 1) -> None:
        self.shares, self.asked = shares, 0
        share = round(1 / per_gpu, 4)
        self.gpus = SharedGpus(share, lambda trial: shares[trial.number])
        self.all = {f"{gpu}.{i}": gpu for gpu in "abcd"[:num_gpus] for i in range(per_gpu)}
        self.running: dict[str, int] = {}
        self.left: list[int] = []
        for worker, gpu in self.all.items():
            self.gpus.add_worker(worker, gpu)

    def next_trial(self) -> Proposal | None:
        if self.left:  # as the engine: an interrupted trial goes on first
            return Proposal(self.left.pop(0), {})
        self.asked += 1
        return Proposal(self.asked - 1, {}) if self.asked <= len(self.shares) else None

    def ask(self) -> None:
        """Lets each free worker ask for a trial, until none gets one."""
        before = -1
        while before != len(self.running):
            before = len(self.running)
            for worker in sorted(self.all.keys() - self.running.keys()):
                trial = self.gpus.next_for(worker, self.next_trial)
                if trial is not None:
                    self.running[worker] = trial.number
        for gpu in set(self.all.values()):
            assert sum(self.shares[n] for n in self.on(gpu)) <= 1.001

    def on(self, gpu: str) -> list[int]:
        """The trials that run on a GPU."""
        return sorted(n for worker, n in self.running.items() if self.all[worker] == gpu)

    def end(self, trial: int, *, left: bool = False) -> None:
        worker = next(w for w, n in self.running.items() if n == trial)
        del self.running[worker]
        if left:
            self.left.append(trial)
        self.gpus.end(worker)

    def make_way(self) -> list[int]:
        """Ends the trials that have to make way, as they report; returns their numbers."""
        in_order = sorted(self.running.items(), key=lambda one: one[1])
        asked = [n for worker, n in in_order if self.gpus.makes_way(worker)]
        for trial in asked:
            self.end(trial, left=True)
        return asked


@pytest.mark.parametrize(
    ("shares", "per_gpu", "expected"),
    [
        ([QUARTER] * 6, 4, [0, 1, 2, 3]),
        ([QUARTER, HALF, QUARTER, QUARTER], 4, [0, 1, 2]),
        ([THIRD] * 4, 3, [0, 1, 2]),
        ([HALF, THIRD], 3, [0, 1]),
        ([HALF, HALF, HALF], 3, [0, 1]),
        ([WHOLE, QUARTER], 4, [0]),
    ],
)
def test_trials_on_a_gpu_take_no_more_than_it_has(
    shares: list[float], per_gpu: int, expected: list[int]
) -> None:
    search = Search(shares, per_gpu)
    search.ask()
    assert search.on("a") == expected


def test_a_worker_of_a_full_gpu_asks_for_no_trial() -> None:
    search = Search([WHOLE, QUARTER, QUARTER])
    search.ask()
    assert search.asked == 1  # what comes next is decided on when there is room for it


def test_small_trials_make_way_for_one_that_needs_the_whole_gpu_and_go_on_after_it() -> None:
    search = Search([QUARTER, WHOLE, *[QUARTER] * 5])
    search.ask()
    assert (search.on("a"), search.asked) == ([0], 2)  # nothing else begins there
    assert search.make_way() == [0]
    search.ask()
    assert search.on("a") == [1]
    assert search.make_way() == []
    search.end(1)
    search.ask()
    assert search.on("a") == [0, 2, 3, 4]


def test_only_as_many_make_way_as_are_needed() -> None:
    search = Search([QUARTER] * 4 + [HALF])
    search.ask()
    search.end(0)
    search.ask()  # the half needs one quarter more
    assert len(search.make_way()) == 1
    search.ask()
    assert len(search.on("a")) == 3
    assert 4 in search.on("a")


def test_no_trial_makes_way_for_one_that_takes_no_more() -> None:
    search = Search([HALF, HALF, HALF, QUARTER])
    search.ask()
    search.end(0)
    search.ask()
    assert search.on("a") == [1, 2]
    search = Search([WHOLE, WHOLE])
    search.ask()
    assert (search.on("a"), search.make_way()) == ([0], [])


def test_only_smaller_ones_make_way_and_only_where_that_is_enough() -> None:
    search = Search([HALF, QUARTER, QUARTER, HALF])
    search.ask()
    search.end(1)
    search.ask()
    assert search.make_way() == [2]
    search = Search([HALF, QUARTER, HALF])
    search.ask()
    free = min(search.all.keys() - search.running.keys())
    search.gpus.remove_worker(free)
    assert search.make_way() == []


def test_two_large_trials_are_given_a_gpu_each() -> None:
    search = Search([*[QUARTER] * 6, WHOLE, WHOLE], num_gpus=2)
    search.ask()
    search.end(0)
    search.ask()
    assert search.make_way() == [1, 2, 3, 4, 5]
    search.ask()
    assert sorted(search.on("a") + search.on("b")) == [6, 7]


def test_small_trials_share_a_gpu_so_that_another_stays_whole() -> None:
    search = Search([QUARTER, QUARTER, QUARTER, WHOLE, QUARTER], num_gpus=2)
    search.ask()
    assert sorted([search.on("a"), search.on("b")]) == [[0, 1, 2, 4], [3]]
    assert search.make_way() == []


def test_other_gpus_go_on_while_one_is_kept_for_a_large_trial() -> None:
    search = Search([*[QUARTER] * 7, WHOLE, *[QUARTER] * 9], num_gpus=2)
    search.ask()
    assert (search.on("a"), search.on("b")) == ([0, 1, 2, 3], [4, 5, 6])
    search.end(0)
    search.ask()
    assert (search.on("a"), search.on("b")) == ([1, 2, 3, 8], [4, 5, 6])
    for trial in search.on("a"):  # what is whole first is taken: nobody has to make way
        search.end(trial)
    search.ask()
    assert search.on("a") == [7]
    assert search.make_way() == []


@pytest.mark.parametrize("seed", range(20))
def test_every_trial_runs_to_its_end_whatever_comes_beside_it(seed: int) -> None:
    rng = random.Random(seed)
    shares = [rng.choice([QUARTER, QUARTER, THIRD, HALF, WHOLE]) for _ in range(60)]
    search = Search(shares, num_gpus=rng.choice([1, 2, 3]))
    left, steps = {n: rng.randint(1, 9) for n in range(60)}, 0
    while any(left.values()):
        search.ask()
        assert search.running
        for trial in rng.sample(sorted(search.running.values()), k=1):
            left[trial] -= 1
            if not left[trial]:
                search.end(trial)
        search.make_way()
        steps += 1
        assert steps < 10 * sum(range(1, 10)) * 60


def test_a_large_trial_waits_no_longer_than_small_ones_take_to_save_themselves() -> None:
    search = Search([*[QUARTER] * 3, WHOLE, *[QUARTER] * 200])
    search.ask()
    search.make_way()
    search.ask()
    assert search.on("a") == [3]


def test_a_trial_whose_worker_is_gone_before_it_took_it_is_given_to_another() -> None:
    search = Search([HALF, QUARTER, QUARTER], num_gpus=2)
    proposals = iter([Proposal(0, {}), None])
    assert search.gpus.next_for("b.0", lambda: next(proposals)) is None  # it is due on GPU a
    search.gpus.remove_worker("a.0")
    found = [search.gpus.next_for(worker, lambda: None) for worker in ("a.1", "a.2", "b.0")]
    assert [trial.number for trial in found if trial is not None] == [0]


def test_workers_that_lend_their_share_stay() -> None:
    search = Search([WHOLE])
    search.ask()
    free = sorted(search.all.keys() - search.running.keys())
    assert not any(map(search.gpus.can_stop, free))
    assert not any(map(search.gpus.can_be_given_up, free))
    (busy,) = search.running
    assert search.gpus.can_be_given_up(busy)  # its trial goes on elsewhere
    search.end(0)
    assert all(map(search.gpus.can_stop, search.all))
    search = Search([QUARTER, WHOLE])
    search.ask()
    assert not any(map(search.gpus.can_stop, search.all))  # the large one waits for them


def test_workers_on_the_gpu_with_the_fewest_go_first() -> None:
    search = Search([], num_gpus=2)
    search.gpus.remove_worker("a.0")
    may_go = [worker for worker in search.all if search.gpus.can_be_given_up(worker)]
    assert may_go == ["a.1", "a.2", "a.3"]


def test_a_trial_that_no_gpu_has_enough_workers_for_waits_for_more() -> None:
    search = Search([WHOLE, QUARTER])
    search.gpus.remove_worker("a.3")
    del search.all["a.3"]
    assert not search.gpus.lacks_workers
    search.ask()
    assert search.gpus.lacks_workers
    assert not search.gpus.is_stuck  # the small one runs
    search.end(1)
    assert search.gpus.is_stuck
    search.all["a.4"] = "a"
    search.gpus.add_worker("a.4", "a")
    search.ask()
    assert search.on("a") == [0]
    assert not search.gpus.lacks_workers
