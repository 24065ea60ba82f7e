"""The observer: is told of a search's events by the engine, and may display them."""

from collections.abc import Mapping
from typing import Any, Protocol

from hpo.config.search_space import Value


class SearchObserver(Protocol):
    """Is told of every event of a search."""

    def phase(self, text: str) -> None:
        """A new part of the work begins, such as 'starting Ray'."""

    def step(self, done: int, total: int) -> None:
        """`done` of the `total` steps of the present phase are done."""

    def note(self, text: str) -> None:
        """A message that the user should read."""

    def earlier_trials(
        self, states: Mapping[str, int], best: tuple[int, float] | None, num_epochs: int
    ) -> None:
        """A resumed search has trials (by state), a best one (number, value) and epochs."""

    def trial_started(self, number: int, params: Mapping[str, Value], num_epochs: int) -> None:
        """A worker took a trial that has trained `num_epochs` epochs before."""

    def epoch_metrics(self, number: int, row: Mapping[str, Any]) -> None:
        """A trial ended an epoch; `row` holds its metrics. `epoch` tells of the same, after it."""

    def epoch(self, number: int, epoch: int, value: float) -> None:
        """A trial ended an epoch with this value of the objective."""

    def trial_paused(self, number: int) -> None:
        """A trial gave up its slot; it may be resumed."""

    def trial_ended(self, number: int, state: str, reason: str, value: float | None) -> None:
        """A trial ended, and the study has it; `value` is the objective at its best epoch.

        `state` is a TrialStatus; INFEASIBLE: the trial's architecture misses a constraint.
        """

    def finalist_trained(self, number: int, seed: int, value: float | None) -> None:
        """A finalist's training on a fresh seed ended; `value` None: it diverged at once."""

    def retrain_epoch(self, row: Mapping[str, Any], max_epochs: int) -> None:
        """The winner's training ended an epoch; `row` holds the epoch's metrics."""
