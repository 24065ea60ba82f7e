"""The observer: is told of a search's events by the engine, and may display them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

from hpo.config.search_space import Value
from hpo.study.trial import TrialReport

if TYPE_CHECKING:  # workers import this module, and need no Optuna
    from hpo.study.study import SearchStudy


@dataclass(frozen=True)
class Place:
    """Where a trial trains, as its worker reported it.

    Attributes:
        hostname: The name of the machine; None: not known.
        gpu: The GPU's number on its machine, or several ('0,1'); None: not known, or no GPU.
        busy: Share of the last epoch in which the GPU worked, 0..1; None: not known, or no GPU.
    """

    hostname: str | None = None
    gpu: str | None = None
    busy: float | None = None

    @classmethod
    def of(cls, report: TrialReport) -> Self:
        """The place that a report tells."""
        last = report.epochs[-1] if report.epochs else {}
        facts = report.facts
        return cls(facts.get("hostname"), facts.get("gpu_number"), last.get("gpu_utilization"))


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

    def study_opened(self, study: "SearchStudy") -> None:
        """The search's study is there, and may be read by any thread."""

    def slots(self, num: int) -> None:
        """So many trials may run at the same time from now on."""

    def trial_started(self, number: int, params: Mapping[str, Value], num_epochs: int) -> None:
        """A worker took a trial that has trained `num_epochs` epochs before."""

    def epoch_metrics(self, number: int, row: Mapping[str, Any]) -> None:
        """A trial ended an epoch; `row` holds its metrics. `epoch` tells of the same, after it."""

    def epoch(self, number: int, epoch: int, value: float) -> None:
        """A trial ended an epoch with this value of the objective."""

    def trains_at(self, number: int, place: Place) -> None:
        """A trial's worker told, with an epoch, where it trains."""

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
