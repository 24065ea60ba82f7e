"""Gives Ray Tune as many workers as the search has slots, while it runs."""

from collections.abc import Callable
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.search import Searcher

from hpo.execution.shared_gpus import EqualShares
from hpo.execution.slots import Slots


class WorkerSupply(Searcher):
    """Starts a worker whenever a slot has none, and says which ones go when there are too many.

    For Ray Tune a worker is a trial, so a Searcher starts it; it suggests no parameters.

    Args:
        slots: Counts the slots.
        num_missing: Returns how many trials of the study have yet to end.
        gpus: Says which worker runs the next trial; None: any that is free.
    """

    def __init__(
        self, slots: Slots, num_missing: Callable[[], int], gpus: EqualShares | None = None
    ) -> None:
        super().__init__()
        self._slots, self._num_missing = slots, num_missing
        self.gpus = gpus or EqualShares()
        self._workers: dict[str, Trial] = {}
        self._leaving: set[str] = set()
        self._waiting: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        """An empty state: Ray pickles a Searcher, but a search resumes from its study alone."""
        return {}

    @property
    def num_slots(self) -> int:
        """The trials that may run at the same time."""
        return self._slots.num

    @property
    def num_running(self) -> int:
        """Workers that have started."""
        return sum(worker.status == Trial.RUNNING for worker in self._workers.values())

    @property
    def any_trains(self) -> bool:
        """Whether a worker has started, does not wait for its group, and could get its trial."""
        return self.num_running > len(self._waiting) and not self.gpus.is_stuck

    def note(self, worker: Trial, *, waits: bool) -> None:
        """Takes notice of whether a worker waits for its group's processes."""
        if waits:
            self._waiting.add(worker.trial_id)
        else:
            self._waiting.discard(worker.trial_id)

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Lets Ray start another worker; None: there are enough now."""
        slots = self._slots
        slots.count(self.num_running)
        num_needed = min(slots.num_wanted, self._num_missing() * slots.num_for_largest)
        if self.gpus.lacks_workers:  # those asked for may be on several GPUs: one more at a time
            num_needed = max(num_needed, min(slots.num_with_room, self.num_running + 1))
        # A worker that could not start, and was given up, counts: its slot is lost.
        return None if len(self._workers) >= num_needed else {}

    def add(self, worker: Trial) -> None:
        """Takes notice of a worker that Ray is to start."""
        self._workers[worker.trial_id] = worker

    def lets_go(self, worker: Trial) -> bool:
        """Whether a running worker has to leave, as there are more workers than slots."""
        if worker.trial_id in self._leaving:
            return True
        slots = self._slots
        most = slots.num_with_room if self.gpus.lacks_workers else slots.num_wanted
        if self.num_running - len(self._leaving) <= most:
            return False
        if not self.gpus.can_be_given_up(worker.trial_id):
            return False
        self._leaving.add(worker.trial_id)
        return True

    def remove(self, worker: Trial) -> None:
        """Takes notice that a worker that had to leave has left."""
        self._leaving.discard(worker.trial_id)
        self._workers.pop(worker.trial_id, None)
        self.gpus.remove_worker(worker.trial_id)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Does nothing: the scheduler says when a worker leaves."""

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: the study is a search's only memory."""

    def restore(self, checkpoint_path: str) -> None:
        """Does nothing."""
