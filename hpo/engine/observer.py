"""What a search tells whoever watches it; showing it is the display's business."""

from collections.abc import Mapping
from typing import Any, Protocol

from hpo.config.search_space import Value


class SearchObserver(Protocol):
    """Hears of every event of a search."""

    def phase(self, text: str) -> None:
        """A new part of the work begins, such as 'starting Ray'."""

    def step(self, done: int, total: int) -> None:
        """How far the present phase is, where that is known."""

    def note(self, text: str) -> None:
        """Something the user should read."""

    def earlier_trials(
        self, states: Mapping[str, int], best: tuple[int, float] | None, num_epochs: int
    ) -> None:
        """What a resumed search has done: trials by state, the best's number and value, epochs."""

    def trial_started(self, number: int, params: Mapping[str, Value], num_epochs: int) -> None:
        """A trial was handed to a worker; `num_epochs` it has trained before."""

    def epoch(self, number: int, epoch: int, value: float) -> None:
        """A trial's objective after an epoch."""

    def trial_paused(self, number: int) -> None:
        """A trial gave its worker up to another; it may be resumed."""

    def trial_ended(self, number: int, state: str, reason: str, value: float | None) -> None:
        """A trial ended, and the study knows; INFEASIBLE: its architecture breaks a constraint."""

    def finalist_trained(self, number: int, seed: int, value: float | None) -> None:
        """A finalist came to the end of a training on a fresh seed; None: it diverged at once."""

    def retrain_epoch(self, row: Mapping[str, Any], max_epochs: int) -> None:
        """An epoch of the winner's training."""
