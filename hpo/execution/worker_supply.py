"""Gives Ray Tune as many workers as the search has slots, while it runs."""

from collections.abc import Callable
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.search import Searcher

from hpo.execution.slots import Slots


class WorkerSupply(Searcher):
    """Starts a worker whenever a slot has none, and says which ones go when there are too many.

    For Ray Tune a worker is a trial, so a Searcher starts it; it suggests no parameters.

    Args:
        slots: Counts the slots.
        num_missing: Returns how many trials of the study have yet to end.
    """

    def __init__(self, slots: Slots, num_missing: Callable[[], int]) -> None:
        super().__init__()
        self._slots, self._num_missing = slots, num_missing
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
        """Whether any worker has started and does not wait for its group's processes."""
        return self.num_running > len(self._waiting)

    def note(self, worker: Trial, *, waits: bool) -> None:
        """Takes notice of whether a worker waits for its group's processes."""
        if waits:
            self._waiting.add(worker.trial_id)
        else:
            self._waiting.discard(worker.trial_id)

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Lets Ray start another worker; None: there are enough now."""
        self._slots.count(self.num_running)
        # A worker that could not start, and was given up, counts: its slot is lost.
        if len(self._workers) >= min(self._slots.num_wanted, self._num_missing()):
            return None
        return {}

    def add(self, worker: Trial) -> None:
        """Takes notice of a worker that Ray is to start."""
        self._workers[worker.trial_id] = worker

    def lets_go(self, worker: Trial) -> bool:
        """Whether a running worker has to leave, as there are more workers than slots."""
        if worker.trial_id in self._leaving:
            return True
        if self.num_running - len(self._leaving) <= self._slots.num_wanted:
            return False
        self._leaving.add(worker.trial_id)
        return True

    def remove(self, worker: Trial) -> None:
        """Takes notice that a worker that had to leave has left."""
        self._leaving.discard(worker.trial_id)
        self._workers.pop(worker.trial_id, None)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Does nothing: the scheduler says when a worker leaves."""

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: the study is a search's only memory."""

    def restore(self, checkpoint_path: str) -> None:
        """Does nothing."""
