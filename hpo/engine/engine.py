"""The engine: which trial starts next, which goes on, and how each one ended."""

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from hpo.config.schema import SearchConfig
from hpo.engine.admission import Admission
from hpo.engine.architectures import ArchitectureCosts
from hpo.engine.budget import Budget, NotedClock
from hpo.engine.checkpoints import TrialCheckpoints
from hpo.engine.ledger import TrialLedger, TrialRecord
from hpo.engine.observer import Place, SearchObserver
from hpo.engine.outcomes import FirstFailures, Outcomes, error_of, outcome_of
from hpo.engine.planner import Planner
from hpo.schedulers.base import Choice, Decision, Resume, Wait, replay_into, tell_end
from hpo.schedulers.factory import make_scheduler
from hpo.study.study import SearchStudy
from hpo.study.trial import (
    STANDING,
    EndReason,
    Proposal,
    TrialError,
    TrialReport,
    TrialStatus,
    TrialSummary,
)

MAX_PAUSED: Final = 64  # paused trials that keep their checkpoints


class Engine:
    """Takes every event of a search to its study, ledger and scheduler; plain code without Ray.

    A report is written to the study before a decision uses it. Trials that an earlier run left
    running go on first. A paused trial is RUNNING in the study until the search ends, and its
    folder keeps the checkpoint that it is resumed from.

    Args:
        config: The config of the search.
        study: The search's only memory.
        num_slots: The most trials that run at the same time.
        observer: Is told of every event.
        checkpoints: Removes the checkpoints that no trial needs.
        clock: Returns seconds.
        max_paused: The most trials that may be paused at the same time.

    Attributes:
        budget: The budget; `have_slots` changes its number of slots.
        paused: Why no trial can go on now, such as a full disk; None while trials can.
    """

    def __init__(
        self,
        config: SearchConfig,
        study: SearchStudy,
        num_slots: int,
        observer: SearchObserver,
        checkpoints: TrialCheckpoints,
        clock: Callable[[], float] = time.monotonic,
        *,
        max_paused: int = MAX_PAUSED,
    ) -> None:
        self._config, self._objective = config, config.study.objective
        self._study, self._observer = study, observer
        self._checkpoints, self._max_paused = checkpoints, max_paused
        study.gate.on_outage = observer.note
        interrupted = study.interrupted()  # they keep their numbers
        facts, trials, num_trials = study.metadata, study.trials(), config.study.num_trials
        self._costs = ArchitectureCosts(config, facts.architectures)
        self._outcomes = Outcomes(config.study, self._costs)
        self._failures = FirstFailures(num_trials)
        self._scheduler = scheduler = make_scheduler(
            config, facts.first_levels, self._costs.objectives, self._costs.is_allowed
        )
        self._ledger = ledger = TrialLedger(self._objective, trials, may_pause=scheduler.may_pause)
        for proposal in interrupted:
            ledger.live[proposal.number].refused = proposal.refused
        self.budget = budget = Budget.of_study(config, study, num_slots, clock, ledger)
        self._clock = NotedClock(budget, study)
        length, is_exhausted = config.train.max_epochs, lambda: self.is_exhausted
        self._admission = Admission(budget, ledger, scheduler, length, num_trials, is_exhausted)
        admission = self._admission
        self._planner = Planner(config, study, ledger, scheduler, budget, admission, observer)
        self._choice: Choice | None = None  # None: the planner was not asked since the last event
        self._is_over = False
        self.paused: TrialError | None = None
        observer.slots(num_slots)
        self._take_up(trials)

    def __getstate__(self) -> dict[str, Any]:
        """An empty state: Ray pickles the engine, but a search resumes from its study alone.

        So the storage's password and the observer's terminal stay out of Ray's files.
        """
        return {}

    @property
    def finished(self) -> bool:
        """Whether no further trial will start or be resumed."""
        if self._ledger.interrupted:
            return False
        may_go_on = self._scheduler.may_pause or self._admission.num_to_start > 0
        return self._is_over or self._planner.is_closing or not may_go_on

    @property
    def is_exhausted(self) -> bool:
        """Whether every configuration of the space has been tried."""
        is_tried = self._scheduler.is_exhausted and not self._study.has_waiting
        return is_tried or self._study.is_exhausted

    @property
    def num_missing(self) -> int:
        """The number of trials that have yet to end, as far as is known now."""
        ledger = self._ledger
        going_on = len(ledger.interrupted) + len(ledger.in_slots)
        if self._is_over:
            return going_on
        waiting = sum(not record.has_slot for record in ledger.paused)
        least = 1 if self._scheduler.may_pause else 0
        return max(least, self._admission.num_to_start + going_on + waiting)

    @property
    def broken(self) -> str | None:
        """The error that all first trials failed with, so that the search is broken; or None."""
        return None if self._ledger.num_ended_well else self._failures.in_common

    def next_trial(self) -> Proposal | None:
        """The trial to start now; None: every slot is taken, or no trial can start."""
        if self.paused or len(self._ledger.in_slots) >= self.budget.num_slots:
            return None
        while not self.finished:
            record = self._next_record()
            if record is None:
                break
            if not self._rules_out(record):
                record.has_slot = True
                number, params, epoch = record.number, record.params, record.num_epochs
                self._observer.trial_started(number, params, epoch)
                return Proposal(number, params, epoch)
        self.settle()
        return None

    def on_report(self, report: TrialReport) -> bool:
        """Writes a report's epochs to the study; returns whether the trial goes on."""
        number, record = report.number, self._ledger.live[report.number]
        has_news, decision = self._record(record, report), Decision.CONTINUE
        if has_news or record.is_undecided:
            record.is_undecided = False
            decision = self._scheduler.on_epoch(number)
        if decision == Decision.STOP:
            record.stopped_at = self._scheduler.place_of_stop(number)
            if (standing := self._scheduler.standing(number)) is not None:
                record.facts[STANDING] = list(standing)
        elif not self._admission.lets_go_on(number):
            record.stopped_at = "the budget's end"
        else:
            return decision == Decision.CONTINUE or self._wins(record)
        return False

    def on_end(self, report: TrialReport) -> None:
        """Takes a trial's last report: it ended by itself, or `on_report` stopped or paused it."""
        record = self._ledger.live[report.number]
        if report.end_reason == EndReason.LEFT:  # it goes on there in the next free slot
            record.has_slot = False
            self._ledger.interrupt(record)
            return
        self._record(record, report)
        if report.end_reason == EndReason.PAUSED and report.error is not None:
            self.paused = self.paused or report.error
        elif record.is_paused:
            self._pause(record)
        else:
            record.stopped_at = record.stopped_at or self._scheduler.place_of_stop(record.number)
            if report.end_reason == EndReason.FAILED:
                self._failures.add(record, error_of(report))
            self._finish(record, *outcome_of(report, record, record.best(self._objective)))

    def on_lost(self, number: int, error: TrialError) -> None:
        """Lets a trial that lost its worker go on in the next free slot.

        After more than `study.max_retries` losses without a new epoch between them it fails.
        """
        self._forget_refusal()
        record = self._ledger.live[number]
        record.lose_worker()
        self._ledger.charge(record)
        if record.num_lost <= self._config.study.max_retries:
            self._ledger.interrupt(record)
        else:
            self._failures.add(record, error)
            self._finish(record, TrialStatus.FAIL, f"{error.type}: {error.message}")

    def have_slots(self, num: int) -> None:
        """Sets how many trials may run at the same time."""
        if num != self.budget.num_slots:
            self.budget.num_slots = num
            self._observer.slots(num)

    def note(self, text: str) -> None:
        """Tells the user a text."""
        self._observer.note(text)

    def settle(self) -> None:
        """Ends the search once no trial runs or may run: gives up the paused trials."""
        is_refused = isinstance(self._choice, Wait)
        if self._is_over or not self._ledger.is_idle or not (is_refused or self.finished):
            return
        self._is_over = True
        if self._planner.too_little is not None:
            self._observer.note(self._planner.too_little)
        for record in self._ledger.paused:
            self._give_up(record)
        is_short = self._ledger.num_started < self._config.study.num_trials
        if self._scheduler.may_pause or is_short:
            self._study.metadata.limits_reached = self._config.limits

    def _take_up(self, trials: Sequence[TrialSummary]) -> None:
        """Takes up an earlier run's trials: paused ones stay paused, running ones go on first.

        The study does not tell whether the scheduler judged a running trial's last epoch. The
        scheduler judges that epoch once the trial's worker reports what it resumed from.
        """
        replay_into(self._scheduler, trials)
        for trial in trials:
            if trial.state != TrialStatus.RUNNING:
                self._checkpoints.trial_ended(trial.number, trial.value)
        for record in self._ledger.live.values():
            if record.is_paused:
                self._scheduler.paused(record.number)
                self._checkpoints.trial_paused(record.number)
            else:
                record.is_undecided = self._scheduler.interrupted(record.number)
        self._planner.take_up(trials)
        self.settle()

    def _next_record(self) -> TrialRecord | None:
        """The trial to run next: an interrupted one, else the planner's choice; or None."""
        if self._ledger.interrupted:
            return self._ledger.take_interrupted() if self._make_room() else None
        if self._choice is None:
            self._choice = self._planner.choose()
        choice = self._choice
        if isinstance(choice, Wait):
            return None
        resumed = choice.number if isinstance(choice, Resume) else None
        if not self._make_room(resumed):
            self._choice = Wait()  # the best choice may change before there is room
            return None
        self._choice = None
        if isinstance(choice, Resume):
            record = self._ledger.live[choice.number]
            record.is_paused = False
            self._scheduler.resumed(choice.number)
            self._checkpoints.trial_resumed(choice.number)
            return record
        proposal = self._study.ask(choice.params)
        self._scheduler.started(proposal.number, proposal.params)
        return self._ledger.start(proposal.number, proposal.params, proposal.refused)

    def _rules_out(self, record: TrialRecord) -> bool:
        """Whether a trial must not be trained; if so, this ends the trial."""
        end = self._outcomes.untrained(record)
        if end is not None:
            self._finish(record, *end)
        return end is not None

    def _record(self, record: TrialRecord, report: TrialReport) -> bool:
        """Writes a report to study and ledger; returns whether it brought new epochs."""
        self._forget_refusal()
        number, values = record.number, report.values(self._config.study.metric)
        self._study.report(number, values)
        news = record.tell(report, values)
        self._outcomes.note_metrics(record, report)
        self._ledger.charge(record)
        self._clock.note()
        if news:
            self._scheduler.reported(number, news)
        for row in report.epochs:
            if (epoch := int(row["epoch"])) in news:
                self._observer.epoch_metrics(number, row)
                self._observer.epoch(number, epoch, news[epoch])
        if news:
            self._observer.trains_at(number, Place.of(report))
        return bool(news)

    def _forget_refusal(self) -> None:
        """Drops a choice to wait: after an event a trial may run that could not before."""
        if isinstance(self._choice, Wait):
            self._choice = None

    def _wins(self, record: TrialRecord) -> bool:
        """Whether a trial at a rung is itself the best one to run next; if not, it pauses."""
        self._scheduler.paused(record.number)
        record.is_paused = True
        if self._ledger.interrupted:
            return False
        self._choice = self._planner.choose()
        if self._choice != Resume(record.number):
            return False
        self._choice, record.is_paused = None, False
        self._scheduler.resumed(record.number)
        return True

    def _pause(self, record: TrialRecord) -> None:
        record.has_slot = False
        self._checkpoints.trial_paused(record.number)
        self._study.pause(record.number, record.facts)
        self._note_line()
        self._observer.trial_paused(record.number)
        chosen = self._choice.number if isinstance(self._choice, Resume) else None
        least = self._scheduler.least_promising(besides=chosen)
        if least is not None and len(self._ledger.paused) > self._max_paused:
            self._give_up(self._ledger.live[least])
        if self._planner.is_closing:
            self.settle()

    def _note_line(self) -> None:
        """Notes in the study, for its readers, who is resumed first, as far as is known."""
        line = self._scheduler.in_line([record.number for record in self._ledger.paused])
        self._study.metadata.line = list(line)

    def _make_room(self, resumed: int | None = None) -> bool:
        """Whether a trial's checkpoints fit; gives up paused trials where that is needed."""
        num_running = len(self._ledger.in_slots)
        while not self._checkpoints.has_room(num_running, resumed):
            least = self._scheduler.least_promising(besides=resumed)
            if least is None:
                return not num_running  # a trial that runs alone has fitted before
            self._give_up(self._ledger.live[least])
        return True

    def _give_up(self, record: TrialRecord) -> None:
        if self._choice == Resume(record.number):
            self._choice = None
        self._finish(record, TrialStatus.PRUNED, f"paused at epoch {record.num_epochs}")

    def _finish(self, record: TrialRecord, outcome: TrialStatus, reason: str) -> None:
        """Ends a trial in study and ledger; tells scheduler, checkpoints and observer."""
        self._forget_refusal()
        number, end = record.number, self._outcomes.end_of(record, outcome, reason)
        self._ledger.end(record, outcome)
        self._study.finish(number, end.state, end.attributes, end.value, end.violations)
        self._checkpoints.trial_ended(number, end.value)
        self._observer.trial_ended(number, outcome, reason, end.best)
        diverged = reason == EndReason.DIVERGED
        tell_end(self._scheduler, number, end.state, end.value, diverged=diverged)
        if end.state != TrialStatus.COMPLETE:
            self._planner.lose(number)
        if self.finished:
            self.settle()
