"""The ledger: one record for each trial, with all that the engine knows of it."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hpo.config.objectives import Objective
from hpo.config.search_space import Params
from hpo.study.trial import (
    NUM_INFEASIBLE_A_TRIAL,
    TrialReport,
    TrialStatus,
    TrialSummary,
    best_epoch,
)


@dataclass
class Taken:
    """The cost of a trial, or of a training after the search; repeated epochs count.

    Attributes:
        epochs: Epochs begun, those repeated after a crash included.
        seconds: Wall-clock seconds of these epochs; 0: not timed.
        gpu_seconds: Seconds times the number of GPUs.
    """

    epochs: float = 0.0
    seconds: float = 0.0
    gpu_seconds: float = 0.0

    def since(self, before: "Taken") -> "Taken":
        """The cost since `before`, at least 0."""
        return Taken(
            max(0.0, self.epochs - before.epochs),
            max(0.0, self.seconds - before.seconds),
            max(0.0, self.gpu_seconds - before.gpu_seconds),
        )


@dataclass
class TrialRecord:
    """One trial of the search.

    Attributes:
        number: The trial's number in the study.
        params: The configuration that is trained.
        curve: The objective by epoch.
        facts: What the trial's worker reported beside epochs, for the study's attributes.
        is_paused: Whether the trial waits until the scheduler resumes it.
        has_slot: Whether a worker runs the trial. A trial that has no slot and is not paused
            was interrupted, and goes on in the next free slot.
        is_undecided: Whether the scheduler has yet to judge the trial's last epoch, because the
            driver died.
        num_lost: Workers that the trial lost since its last new epoch.
        stopped_at: Where the trial was stopped, in words; empty while it was not.
        before: The trial's cost to another study's search, when it was carried over; None: the
            trial is this study's own.
        refused: Why the trial cannot run, see Proposal; empty where it can.
    """

    number: int
    params: Params
    curve: dict[int, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    is_paused: bool = False
    has_slot: bool = False
    is_undecided: bool = False
    num_lost: int = 0
    stopped_at: str = ""
    before: Taken | None = None
    refused: str = ""

    @property
    def num_epochs(self) -> int:
        """The last epoch of the curve; 0 before the first."""
        return max(self.curve, default=0)

    @property
    def taken(self) -> Taken:
        """The trial's cost to this search's budget."""
        taken = taken_by(self.num_epochs, self.facts)
        return taken if self.before is None else taken.since(self.before)

    def best_epoch(self, objective: Objective) -> int | None:
        """The epoch whose weights the trial keeps; None: no epoch has a value yet."""
        return best_epoch(self.curve, self.facts.get("best_epoch"), objective)

    def best(self, objective: Objective) -> float | None:
        """The trial's value: the objective at its best epoch; None: it has none yet."""
        best = self.best_epoch(objective)
        return None if best is None else self.curve[best]

    def tell(self, report: TrialReport, values: Mapping[int, float]) -> dict[int, float]:
        """Adds a report's epochs and facts; returns the objective by epoch of the new ones."""
        news = {epoch: value for epoch, value in values.items() if epoch not in self.curve}
        self.curve |= news
        self.facts |= report.facts
        if news:
            self.num_lost = 0
        return news

    def lose_worker(self) -> None:
        """Counts the loss of a worker, and an epoch that the worker may have trained in vain.

        The next report corrects the number of epochs trained.
        """
        self.has_slot = False
        self.num_lost += 1
        known = max(self.num_epochs, int(self.facts.get("num_epochs_trained", 0)))
        self.facts["num_epochs_trained"] = known + 1


@dataclass(frozen=True)
class Cost:
    """One trial's cost to the budget, and its promise.

    Attributes:
        taken: Epochs, seconds and GPU-seconds that this search has used on the trial.
        promise: The trial's value, larger is better; minus infinity: it has none yet.
    """

    taken: Taken
    promise: float


class TrialLedger:
    """The records of trials that have not ended, and the costs of all trials.

    Args:
        objective: The objective that trials are compared by.
        trials: The study's trials.
        may_pause: Whether the scheduler resumes paused trials; if not, these count as
            interrupted.

    Attributes:
        live: Records of the trials that have not ended, by number, in the order of their starts.
        costs: Cost by number, for the trials that have used any budget.
        num_charges: How often `costs` has changed.
        num_trained: Trials that started and were not ruled out by their architecture.
        num_infeasible: Trials that were ruled out by their architecture.
        num_ended_well: Trials that ended COMPLETE or PRUNED.
    """

    def __init__(
        self, objective: Objective, trials: Iterable[TrialSummary] = (), *, may_pause: bool = True
    ) -> None:
        self._objective = objective
        self.live: dict[int, TrialRecord] = {}
        self.costs: dict[int, Cost] = {}
        self.num_charges = 0
        self._interrupted: list[int] = []
        self.num_trained = self.num_infeasible = self.num_ended_well = 0
        for trial in trials:
            self._take_up(trial, may_pause=may_pause)

    def _take_up(self, trial: TrialSummary, *, may_pause: bool) -> None:
        record = TrialRecord(
            trial.number, trial.params, dict(trial.curve), dict(trial.facts), before=_before(trial)
        )
        self.charge(record)
        self.num_infeasible += trial.outcome == TrialStatus.INFEASIBLE
        self.num_trained += trial.outcome != TrialStatus.INFEASIBLE
        self.num_ended_well += trial.outcome in {TrialStatus.COMPLETE, TrialStatus.PRUNED}
        if trial.state == TrialStatus.RUNNING:
            record.facts = trial.facts_of_pause or {}
            record.is_paused = may_pause and trial.facts_of_pause is not None
            self.live[trial.number] = record
            if not record.is_paused:
                self._interrupted.append(trial.number)

    def start(self, number: int, params: Params, refused: str = "") -> TrialRecord:
        """Opens a new trial's record; `refused` says why it cannot run, see Proposal."""
        self.num_trained += 1
        self.live[number] = TrialRecord(number, params, refused=refused)
        return self.live[number]

    def interrupt(self, record: TrialRecord) -> None:
        """Queues a trial that lost its worker, after those that were interrupted before it."""
        self._interrupted.append(record.number)

    def take_interrupted(self) -> TrialRecord:
        """Takes the first interrupted trial out of the queue, to be given a slot."""
        return self.live[self._interrupted.pop(0)]

    def charge(self, record: TrialRecord) -> None:
        """Updates what a trial has cost by now."""
        taken = record.taken
        if taken.epochs:
            best = record.best(self._objective)
            promise = -math.inf if best is None else self._objective.sign * best
            self.costs[record.number] = Cost(taken, promise)
            self.num_charges += 1

    def end(self, record: TrialRecord, outcome: TrialStatus) -> None:
        """Closes a trial's record; its cost stays."""
        del self.live[record.number]
        if outcome == TrialStatus.INFEASIBLE:
            self.num_trained -= 1
            self.num_infeasible += 1
        self.num_ended_well += outcome in {TrialStatus.COMPLETE, TrialStatus.PRUNED}

    @property
    def num_started(self) -> int:
        """Started trials as `study.num_trials` counts them: ten ruled out ones are one."""
        return self.num_trained + self.num_infeasible // NUM_INFEASIBLE_A_TRIAL

    @property
    def interrupted(self) -> tuple[int, ...]:
        """Numbers of the interrupted trials, in the order in which free slots take them."""
        return tuple(self._interrupted)

    @property
    def in_slots(self) -> list[TrialRecord]:
        """The trials that workers run."""
        return [record for record in self.live.values() if record.has_slot]

    @property
    def running(self) -> list[TrialRecord]:
        """The trials that are not paused, with a slot or waiting for one."""
        return [record for record in self.live.values() if not record.is_paused]

    @property
    def paused(self) -> list[TrialRecord]:
        """The paused trials."""
        return [record for record in self.live.values() if record.is_paused]

    @property
    def is_idle(self) -> bool:
        """Whether no trial runs, and none is to go on in the next free slot."""
        return not self._interrupted and not self.in_slots


def taken_by(num_epochs: int, facts: Mapping[str, Any]) -> Taken:
    """The cost of a trial at epoch `num_epochs`; a repeated epoch counts as any other."""
    epochs = max(num_epochs, float(facts.get("num_epochs_trained", 0)))
    if "seconds" not in facts:
        return Taken(epochs)
    repeated = epochs / max(1, num_epochs)
    return Taken(epochs, float(facts["seconds"]) * repeated, gpu_seconds_of(facts) * repeated)


def gpu_seconds_of(facts: Mapping[str, Any]) -> float:
    """GPU-seconds of a training; one without a GPU counts as one on one GPU."""
    return float(facts.get("gpu_seconds") or facts["seconds"])


def _before(trial: TrialSummary) -> Taken | None:
    """A carried-over trial's cost to the other study's search; None: it is our own trial."""
    if not trial.is_carried_over:
        return None
    # Older versions kept no record: all that the trial has now is the other study's.
    before = trial.facts_of_origin or {**trial.facts, "num_epochs": trial.num_epochs}
    return taken_by(int(before["num_epochs"]), before)
