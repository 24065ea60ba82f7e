"""The workers of a simulated search whose trials take different shares of a GPU."""

from collections.abc import Callable

from hpo.execution.shared_gpus import SharedGpus
from hpo.study.trial import Proposal


class SimulatedWorkers:
    """Workers that run trials as those of a search do; one makes way at the end of an epoch.

    Args:
        num: The number of workers.
        per_gpu: How many of them share a GPU.
        share_of: Returns the share that a trial takes.
    """

    def __init__(self, num: int, per_gpu: int, share_of: Callable[[Proposal], float]) -> None:
        self._gpus = SharedGpus(1 / per_gpu, share_of)
        self._free = {str(i) for i in range(num)}
        self._busy: dict[int, str] = {}  # the worker of each running trial
        for i in range(num):
            self._gpus.add_worker(str(i), str(i // per_gpu))

    def next_trial(self, ask: Callable[[], Proposal | None]) -> Proposal | None:
        """The next trial to run, or None; see SharedGpus.next_for."""
        for worker in sorted(self._free):
            proposal = self._gpus.next_for(worker, ask)
            if proposal is not None:
                self._free.remove(worker)
                self._busy[proposal.number] = worker
                return proposal
        return None

    def makes_way(self, number: int) -> bool:
        """Whether a running trial has to make way for one that waits."""
        return self._gpus.makes_way(self._busy[number])

    def end(self, number: int) -> None:
        """Takes notice that a trial runs no longer."""
        worker = self._busy.pop(number)
        self._free.add(worker)
        self._gpus.end(worker)
