"""Which worker runs the next trial, where trials take different shares of a GPU."""

from collections import Counter
from collections.abc import Callable
from typing import Final

from hpo.study.trial import Proposal

ROUNDING: Final = 1e-3  # three shares of 0.3333 are a GPU


class EqualShares:
    """Every trial takes what a worker has, so a free worker runs the next trial."""

    def add_worker(self, worker: str, gpu: str) -> None:
        """Takes notice of a worker that has started, and of its GPU."""

    def remove_worker(self, worker: str) -> None:
        """Takes notice that a worker is gone; a trial that it has yet to take is given again."""

    def end(self, worker: str) -> None:
        """Takes notice that a worker runs its trial no longer."""

    def next_for(self, worker: str, ask: Callable[[], Proposal | None]) -> Proposal | None:
        """The trial that a free worker is to run now, or None.

        Args:
            worker: The worker.
            ask: Returns the next trial to run on any worker; None: there is none now.
        """
        return ask()

    def makes_way(self, worker: str) -> bool:
        """Whether a worker's trial has to give its share, from now on, to one that waits."""
        return False

    def can_stop(self, worker: str) -> bool:
        """Whether no trial that runs or waits needs a free worker, or its share."""
        return True

    def can_be_given_up(self, worker: str) -> bool:
        """Whether a worker is one of those that go first when there are too many."""
        return True

    @property
    def lacks_workers(self) -> bool:
        """Whether a trial waits that takes more than the workers of any GPU have together."""
        return False

    @property
    def is_stuck(self) -> bool:
        """Whether trials wait and none runs."""
        return False


class SharedGpus(EqualShares):
    """Gives trials to workers, so that those on one GPU take no more of it than its workers have.

    All workers have the same small share of a GPU. A trial that takes more runs on one of them,
    while others of that GPU idle. A trial for which no GPU has room waits, and reserves a GPU:
    nothing else begins there until it has begun. Trials of smaller shares that run there make way
    for it, others it waits for. So a large trial does not wait long for a GPU that small ones
    use, and two trials never make way for each other.

    Args:
        worker_share: The share of a GPU that a worker has.
        share_of: Returns the share that a trial takes: a worker's, or more.
    """

    def __init__(self, worker_share: float, share_of: Callable[[Proposal], float]) -> None:
        self._worker_share, self._share_of = worker_share, share_of
        self._gpus: dict[str, str] = {}  # the GPU of each worker
        self._taken: dict[str, float] = {}  # the share of each worker's trial
        self._due: dict[str, Proposal] = {}  # trials that their worker has yet to take
        self._making_way: set[str] = set()  # workers
        self._waiting: dict[int, tuple[Proposal, float]] = {}  # by number, with its share
        self._reserved: dict[int, str] = {}  # the GPU of a waiting trial

    def add_worker(self, worker: str, gpu: str) -> None:
        if self._gpus.get(worker) != gpu:
            self._gpus[worker] = gpu
            self._place()

    def remove_worker(self, worker: str) -> None:
        due = self._due.pop(worker, None)
        if due is not None:
            self._waiting = {due.number: (due, self._taken[worker]), **self._waiting}
        self._gpus.pop(worker, None)
        self.end(worker)

    def end(self, worker: str) -> None:
        self._taken.pop(worker, None)
        self._making_way.discard(worker)
        self._place()

    def next_for(self, worker: str, ask: Callable[[], Proposal | None]) -> Proposal | None:
        while self._may_begin_another(worker):
            proposal = ask()
            if proposal is None:
                break
            self._waiting[proposal.number] = proposal, self._share_of(proposal)
            self._place()
        return self._due.pop(worker, None)

    def makes_way(self, worker: str) -> bool:
        gpu = self._gpus.get(worker)
        waiting = next((n for n, reserved in self._reserved.items() if reserved == gpu), None)
        if gpu is None or waiting is None or worker in self._making_way:
            return False
        share = self._waiting[waiting][1]
        is_smaller = not _fits(share, self._taken.get(worker, share))
        coming = sum(self._taken[one] for one in self._making_way if self._gpus[one] == gpu)
        is_needed = not _fits(share, self._free(gpu) + coming)
        if not (is_smaller and is_needed and _fits(share, self._obtainable(gpu, share))):
            return False
        self._making_way.add(worker)
        return True

    def can_stop(self, worker: str) -> bool:
        return worker not in self._taken and not self._waiting and self._is_spare(worker)

    def can_be_given_up(self, worker: str) -> bool:
        # One on the GPU with the fewest workers, whose share no other worker's trial has.
        held, gpu = Counter(self._gpus.values()), self._gpus.get(worker)
        if gpu is None or gpu != min(held, key=lambda one: (held[one], one)):
            return False
        return self._is_spare(worker)

    @property
    def lacks_workers(self) -> bool:
        most = max(map(self._all_of, self._gpus.values()), default=0.0)
        return not all(_fits(share, most) for _, share in self._waiting.values())

    @property
    def is_stuck(self) -> bool:
        return bool(self._waiting) and not self._taken

    def _may_begin_another(self, worker: str) -> bool:
        gpu = self._gpus.get(worker)
        if gpu is None or worker in self._taken or gpu in self._reserved.values():
            return False
        return _fits(self._worker_share, self._free(gpu))

    def _place(self) -> None:
        """Gives trials that wait to free workers, the first first, or reserves GPUs for them."""
        for number, (proposal, share) in tuple(self._waiting.items()):
            kept = self._reserved.pop(number, None)
            gpus = {*self._gpus.values()} - {*self._reserved.values()}
            now = [gpu for gpu in gpus if _fits(share, self._free(gpu))]
            later = [gpu for gpu in gpus if _fits(share, self._all_of(gpu))]
            if now:
                # Where the least is left, so that other GPUs stay whole.
                gpu = min(now, key=lambda one: (self._free(one), one))
                self._give(proposal, share, gpu)
            elif later:
                # Where the least has to make way, unless it has begun to elsewhere.
                self._reserved[number] = min(
                    later, key=lambda one: (one != kept, sum(self._shares_on(one)), one)
                )

    def _give(self, proposal: Proposal, share: float, gpu: str) -> None:
        free = (one for one, its in self._gpus.items() if its == gpu and one not in self._taken)
        worker = next(free)  # each trial has at least its worker's share, so there is one
        self._taken[worker], self._due[worker] = share, proposal
        del self._waiting[proposal.number]

    def _is_spare(self, worker: str) -> bool:
        """Whether the other workers of its GPU have the shares of all trials on these."""
        gpu, own = self._gpus.get(worker), self._taken.get(worker, 0.0)
        return gpu is None or _fits(self._worker_share, self._free(gpu) + own)

    def _all_of(self, gpu: str) -> float:
        return self._worker_share * sum(its == gpu for its in self._gpus.values())

    def _free(self, gpu: str) -> float:
        return self._all_of(gpu) - sum(self._shares_on(gpu))

    def _obtainable(self, gpu: str, share: float) -> float:
        """What is free, and what trials of smaller shares have."""
        return self._free(gpu) + sum(s for s in self._shares_on(gpu) if not _fits(share, s))

    def _shares_on(self, gpu: str) -> list[float]:
        return [share for one, share in self._taken.items() if self._gpus[one] == gpu]


def _fits(share: float, room: float) -> bool:
    return share <= room + ROUNDING
