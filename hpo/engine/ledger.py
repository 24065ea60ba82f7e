"""One record a trial, in one ledger: what the engine knows of the trials of its search."""

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
    """What a trial, or a training on a fresh seed, takes of a budget; repeated epochs count."""

    epochs: float = 0.0
    seconds: float = 0.0
    gpu_seconds: float = 0.0

    def since(self, before: "Taken") -> "Taken":
        """What was taken after `before`."""
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
        params: What is trained.
        curve: The objective by epoch.
        facts: What its worker told of it, for the study's attributes.
        is_paused: Whether it waits for a slot that the scheduler has yet to give it.
        has_slot: Whether a worker runs it. One without a slot that is not paused was
            interrupted: it goes on in the next free slot.
        is_undecided: Whether the scheduler has yet to judge its last epoch, since the driver
            died.
        num_lost: Workers that it lost since its last new epoch.
        stopped_at: Where it was stopped, in words; empty while it was not.
        before: What another study's search had taken when the trial was carried over.
        refused: Why the trial cannot run, as of Proposal; empty where it can.
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
        """What this search's budget pays for the trial."""
        taken = taken_by(self.num_epochs, self.facts)
        return taken if self.before is None else taken.since(self.before)

    def best_epoch(self, objective: Objective) -> int | None:
        """The epoch whose weights the trial keeps; None: there is none yet."""
        return best_epoch(self.curve, self.facts.get("best_epoch"), objective)

    def best(self, objective: Objective) -> float | None:
        """The trial's value: the objective at its best epoch."""
        best = self.best_epoch(objective)
        return None if best is None else self.curve[best]

    def tell(self, report: TrialReport, values: Mapping[int, float]) -> dict[int, float]:
        """Adds a report's epochs and facts; gives back the epochs that were not known."""
        news = {epoch: value for epoch, value in values.items() if epoch not in self.curve}
        self.curve |= news
        self.facts |= report.facts
        if news:
            self.num_lost = 0
        return news

    def lose_worker(self) -> None:
        """Counts the worker's loss, and an epoch that it may have trained in vain.

        The next report tells how many epochs were trained in truth.
        """
        self.has_slot = False
        self.num_lost += 1
        known = max(self.num_epochs, int(self.facts.get("num_epochs_trained", 0)))
        self.facts["num_epochs_trained"] = known + 1


@dataclass(frozen=True)
class Cost:
    """What one trial has taken of the budget, and how good it is.

    Attributes:
        taken: Epochs, seconds and GPU-seconds.
        promise: The trial's value, turned such that larger is better; minus infinity: none.
    """

    taken: Taken
    promise: float


class TrialLedger:
    """The records of trials that have not ended, and what all trials have cost.

    Args:
        objective: What trials are compared by.
        trials: The study's trials.
        may_pause: Whether the scheduler resumes paused trials; else they were interrupted.

    Attributes:
        live: Records of the trials that have not ended, by number, in the order of their starts.
        costs: By number, of the trials that have taken anything.
        num_charges: How often costs have changed.
        num_trained: Trials that started and were not ruled out by their architecture.
        num_infeasible: Trials that were ruled out.
        num_ended_well: Trials that ended otherwise than by breaking, INFEASIBLE ones aside.
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
        """A new trial's record; `refused` as of Proposal."""
        self.num_trained += 1
        self.live[number] = TrialRecord(number, params, refused=refused)
        return self.live[number]

    def interrupt(self, record: TrialRecord) -> None:
        """The trial lost its worker; it goes on after those that were interrupted before it."""
        self._interrupted.append(record.number)

    def take_interrupted(self) -> TrialRecord:
        """The first of the interrupted trials, which is given a slot."""
        return self.live[self._interrupted.pop(0)]

    def charge(self, record: TrialRecord) -> None:
        """Notes what a trial has taken by now."""
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
        """Trials as `study.num_trials` counts them: ten that were ruled out count as one."""
        return self.num_trained + self.num_infeasible // NUM_INFEASIBLE_A_TRIAL

    @property
    def interrupted(self) -> tuple[int, ...]:
        """Numbers of the trials that go on in the next free slots, in this order."""
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
        """Whether nothing runs, or goes on in the next free slot."""
        return not self._interrupted and not self.in_slots


def taken_by(num_epochs: int, facts: Mapping[str, Any]) -> Taken:
    """What a trial that has come to an epoch took; repeated epochs take as long as others."""
    epochs = max(num_epochs, float(facts.get("num_epochs_trained", 0)))
    if "seconds" not in facts:
        return Taken(epochs)
    repeated = epochs / max(1, num_epochs)
    return Taken(epochs, float(facts["seconds"]) * repeated, gpu_seconds_of(facts) * repeated)


def gpu_seconds_of(facts: Mapping[str, Any]) -> float:
    """Seconds of GPUs; a trial without a GPU counts as one on one GPU."""
    return float(facts.get("gpu_seconds") or facts["seconds"])


def _before(trial: TrialSummary) -> Taken | None:
    """What another study's search has taken for a trial; None: it is this study's own."""
    if not trial.is_carried_over:
        return None
    # Without a record, of an older version, what the trial has now is the other study's.
    before = trial.facts_of_origin or {**trial.facts, "num_epochs": trial.num_epochs}
    return taken_by(int(before["num_epochs"]), before)
