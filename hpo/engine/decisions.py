"""The search's decisions, plain code over the study: Ray's hooks only pass on to it."""

import math
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from hpo.config.objectives import METRICS
from hpo.config.schema import SearchConfig
from hpo.config.search_space import Params
from hpo.engine.architectures import ArchitectureCosts
from hpo.engine.budget import Budget
from hpo.engine.checkpoints import TrialCheckpoints
from hpo.engine.observer import SearchObserver
from hpo.schedulers.factory import make_stopping_rule
from hpo.schedulers.first_rung import with_first_level
from hpo.study.study import SearchStudy
from hpo.study.trial import NUM_INFEASIBLE_A_TRIAL, Proposal, TrialError, TrialReport
from sgformer.config import maximises

SECONDS_BETWEEN_NOTES: Final = 10.0
# After this many failures and no other end, the search is broken, not the trials.
MAX_FIRST_FAILURES: Final = 5
BEST_EPOCH: Final = "metrics_of_best_epoch"


class Decisions:
    """Which trial starts next, which goes on, and how each one ended.

    What is told is in the study before the next decision rests on it. Trials that an earlier
    run left behind are continued first, and its curves are what others are compared with.

    Attributes:
        paused: Why nothing can go on now, such as a full disk; None while it can.
    """

    def __init__(
        self,
        config: SearchConfig,
        study: SearchStudy,
        num_slots: int,
        observer: SearchObserver,
        checkpoints: TrialCheckpoints,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config, self._metric = config, config.study.metric
        self._num_trials = config.study.num_trials
        self._max_retries = config.study.max_retries
        self._study, self._num_slots, self._observer = study, num_slots, observer
        self._checkpoints = checkpoints
        study.on_outage = observer.note
        self._maximise = maximises(self._metric)
        scheduler = with_first_level(config.scheduler, study.metadata.first_levels)
        self._stopping = make_stopping_rule(
            scheduler, config.train.max_epochs, maximise=self._maximise
        )
        is_full = scheduler.name == "none"
        self._first_rung = config.train.max_epochs if is_full else scheduler.min_epochs or 1
        self._limits = config.limits
        self._costs = ArchitectureCosts(config, study.metadata.architectures)
        self._bounded_metrics = [c for c in config.study.constraints if c.name in METRICS]
        self._interrupted = deque(study.interrupted())
        self._curves: dict[int, dict[int, float]] = {}
        self._facts: dict[int, dict[str, Any]] = {}
        self._params: dict[int, Params] = {}
        self._num_lost: Counter[int] = Counter()
        earlier = study.trials()
        self._num_infeasible = sum(t.outcome == "INFEASIBLE" for t in earlier)
        self._num_trained = len(earlier) - self._num_infeasible
        self._num_ended_well = sum(t.outcome in {"COMPLETE", "PRUNED"} for t in earlier)
        self._first_failures: list[str] = []
        for trial in earlier:
            if trial.state != "RUNNING":
                checkpoints.trial_ended(trial.number, trial.value)
            curve = dict(trial.curve)
            if trial.state == "RUNNING":
                self._curves[trial.number] = dict(curve)
                # Whether it was judged after its last epoch is not known: it is, when its worker
                # tells what it resumed.
                curve.pop(trial.num_epochs, None)
            self._stopping.goes_on(trial.number, curve, self._costs.objectives(trial.params))
        self._budget = Budget.of_study(config, study, num_slots, clock)
        self._seconds_noted = self._budget.seconds
        self._running: set[int] = set()
        self.paused: str | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray pickles what its Tuner holds, and the study alone is the memory.

        It also keeps the storage's password and the observer's terminal out of Ray's files.
        """
        return {}

    @property
    def finished(self) -> bool:
        """Whether no further trial will start."""
        return not self._num_to_start and not self._interrupted

    @property
    def is_exhausted(self) -> bool:
        """Whether every configuration of the space has been tried."""
        return self._study.is_exhausted

    @property
    def _num_started(self) -> int:
        """Trials, as study.num_trials counts them."""
        return self._num_trained + self._num_infeasible // NUM_INFEASIBLE_A_TRIAL

    @property
    def num_missing(self) -> int:
        """Trials that have yet to end."""
        return self._num_to_start + len(self._interrupted) + len(self._running)

    @property
    def _num_to_start(self) -> int:
        is_idle = not self._running and not self._interrupted
        if self._is_spent or self.is_exhausted or (is_idle and not self._lets_start):
            return 0
        return max(0, self._num_trials - self._num_started)

    @property
    def broken(self) -> str | None:
        """Why going on makes no sense: the first trials all failed alike; else None."""
        failures = self._first_failures
        if self._num_ended_well or len(failures) < min(MAX_FIRST_FAILURES, self._num_trials):
            return None
        return failures[0] if len(set(map(_without_numbers, failures))) == 1 else None

    def ranking(self) -> tuple[int, ...]:
        """Numbers of trials, the most promising first."""
        sign = 1.0 if self._maximise else -1.0
        values = {t.number: t.attributes.get("best_value") for t in self._study.trials()}
        values |= {number: self._best(number) for number in self._curves}
        known = {number: value for number, value in values.items() if value is not None}
        return tuple(sorted(known, key=lambda number: (-sign * known[number], number)))

    def next_trial(self) -> Proposal | None:
        """The trial to start now; None while every slot is taken or when there is none left."""
        if self.paused or len(self._running) >= self._num_slots:
            return None
        proposal = self._feasible_proposal()
        if proposal is None:
            return None
        self._running.add(proposal.number)
        self._params[proposal.number] = proposal.params
        self._facts.setdefault(proposal.number, {})
        self._observer.trial_started(
            proposal.number, proposal.params, proposal.num_epochs_reported
        )
        return proposal

    def on_report(self, report: TrialReport) -> bool:
        """Writes the epochs to the study; gives back whether the trial goes on."""
        number = report.number
        news = self._record(report)
        return self._goes_on(number, has_news=bool(news))

    def on_end(self, report: TrialReport) -> None:
        """A trial's last report: it ended by itself, or `on_report` stopped it."""
        self._record(report)
        number, reason = report.number, report.end_reason
        if reason == "paused" and report.error is not None:
            self.paused = self.paused or report.error.message
            return
        curve = self._curves[number]
        best = self._best(number)
        if reason != "failed":  # one that ended by itself is compared with, too
            self._stopping.goes_on(number, curve, self._costs.objectives(self._params[number]))
        if reason == "failed":
            self._fail(number, report.error or TrialError("Unknown", "no reason was given"))
        elif reason in {"completed", "early_stopped"} and best is not None:
            self._finish(number, "COMPLETE", reason, best)
        elif reason == "diverged" or best is None:
            self._finish(number, "PRUNED", "diverged", best)
        else:
            point = "epoch" if self._config.scheduler.name == "median" else "rung"
            where = "the budget's end" if self._is_spent else f"{point} {max(curve)}"
            self._finish(number, "PRUNED", f"stopped at {where}", best)

    def on_lost(self, number: int, error: TrialError) -> None:
        """A trial's worker is gone: the trial goes on in the next free slot, a few times."""
        self._num_lost[number] += 1
        if self._num_lost[number] > self._max_retries:
            self._charge_an_epoch(number)
            self._fail(number, error)
            return
        self._running.discard(number)
        self._charge_an_epoch(number)
        proposal = Proposal(number, self._params[number], self._num_epochs(number))
        self._interrupted.append(proposal)

    def _goes_on(self, number: int, *, has_news: bool) -> bool:
        """Whether a running trial keeps its worker after a report."""
        costs = self._costs.objectives(self._params[number])
        stands = self._stopping.goes_on(number, self._curves[number], costs)
        is_out = self._is_used_up if number == 0 else not self._leaves_the_defaults
        return stands and not is_out

    def _feasible_proposal(self) -> Proposal | None:
        """What to run next; those that are ruled out on the way have ended."""
        while not self.finished:
            proposal = self._next_proposal()
            if proposal is None or not self._rules_out(proposal):
                return proposal
        return None

    def _next_proposal(self) -> Proposal | None:
        if not self._checkpoints.has_room(len(self._running)):
            return None
        if self._interrupted:
            return self._interrupted.popleft()
        return self._start(None) if self._lets_start else None

    def _start(self, params: Params | None) -> Proposal:
        proposal = self._study.ask(params)
        self._num_trained += 1
        self._curves[proposal.number] = {}
        return proposal

    def _rules_out(self, proposal: Proposal) -> bool:
        """Whether its architecture does; then the trial has ended, before any training."""
        reason = self._costs.infeasible(proposal.params)
        if reason is None or self._curves[proposal.number]:
            return False
        self._num_trained -= 1
        self._num_infeasible += 1
        self._params[proposal.number], self._facts[proposal.number] = proposal.params, {}
        self._finish(proposal.number, "PRUNED", f"infeasible: {reason}", None)
        return True

    @property
    def _is_used_up(self) -> bool:
        """Whether a limit leaves no more for trials."""
        return any(self._budget.left(limit) <= 0 for limit in self._budget.limits)

    @property
    def _is_spent(self) -> bool:
        """Whether an epoch more of each trial that runs leaves nothing for another."""
        return any(spare <= 0 for spare in self._to_spare())

    @property
    def _leaves_the_defaults(self) -> bool:
        """Whether an epoch more of each trial that runs leaves the default its training."""
        return all(spare >= 0 for spare in self._to_spare())

    @property
    def _lets_start(self) -> bool:
        """Whether a new trial can come to where it says something, as those that run can."""
        return all(spare >= 0 for spare in self._to_spare(self._first_rung))

    def _to_spare(self, rung: int = 0) -> list[float]:
        """Of each limit: beside the default's training, and an epoch of each trial that runs.

        With a rung: beside what these, and a new trial, need to come there.
        """
        ahead = {n: max(1, rung - self._num_epochs(n)) for n in self._running} | {None: rung}
        if 0 in self._curves:
            ahead[0] = self._config.train.max_epochs - self._num_epochs(0)
        budget = self._budget
        return [
            budget.left(limit)
            - limit.together([num * budget.an_epoch(limit, n) for n, num in ahead.items()])
            for limit in budget.limits
        ]

    def _num_epochs(self, number: int) -> int:
        """That a trial which has not ended has come to."""
        return max(self._curves.get(number, ()), default=0)

    def _charge_an_epoch(self, number: int) -> None:
        """That of a worker that is gone; the next report tells what was trained in truth."""
        curve, facts = self._curves[number], self._facts[number]
        known = max(self._num_epochs(number), int(facts.get("num_epochs_trained", 0)))
        facts["num_epochs_trained"] = known + 1
        self._budget.trained(number, curve, facts)

    def _record(self, report: TrialReport) -> Mapping[int, float]:
        """The epochs that were not known."""
        number, curve = report.number, self._curves[report.number]
        values = report.values(self._metric)
        self._study.report(number, values)
        self._facts[number] |= report.facts
        news = {epoch: value for epoch, value in values.items() if epoch not in curve}
        curve |= news
        self._note_best_epoch(report)
        self._budget.trained(number, curve, self._facts[number])
        self._note_seconds()
        for epoch, value in news.items():
            self._observer.epoch(number, epoch, value)
        return news

    def _note_seconds(self) -> None:
        """Of the clock, for a search that is resumed; now and then, since it is a write."""
        seconds = self._budget.seconds
        if seconds > self._seconds_noted + SECONDS_BETWEEN_NOTES:
            self._seconds_noted = self._study.metadata.seconds_searched = seconds

    def _note_best_epoch(self, report: TrialReport) -> None:
        """Keeps what constraints on metrics need with the trial's facts, also while it pauses."""
        if not self._bounded_metrics:
            return
        best = self._best_epoch(report.number)
        names = {self._metric, *(constraint.name for constraint in self._bounded_metrics)}
        for row in report.epochs:
            if int(row["epoch"]) == best:
                known = {name: float(row[name]) for name in names if name in row}
                self._facts[report.number][BEST_EPOCH] = known

    def _violations(self, facts: Mapping[str, Any]) -> dict[str, float]:
        """By how much a trial's best epoch misses each constraint on a metric."""
        row = facts.get(BEST_EPOCH, {})
        return {str(c): c.violation(row[c.name]) for c in self._bounded_metrics if c.name in row}

    def _best(self, number: int) -> float | None:
        """A trial's value in the epoch whose weights it keeps."""
        best = self._best_epoch(number)
        return None if best is None else self._curves[number][best]

    def _best_epoch(self, number: int) -> int | None:
        curve = self._curves[number]
        known = {epoch: value for epoch, value in curve.items() if not math.isnan(value)}
        told = self._facts.get(number, {}).get("best_epoch")
        if told in known:  # another one, if early_stopping.metric is not the objective
            return int(told)
        return (max if self._maximise else min)(
            known, key=lambda epoch: known[epoch], default=None
        )

    def _fail(self, number: int, error: TrialError) -> None:
        if not self._num_ended_well:
            self._first_failures.append(f"{error.type}: {error.message}")
        self._facts[number]["error"] = {
            "type": error.type,
            "message": error.message,
            "traceback": error.traceback,
        }
        self._finish(number, "FAIL", f"{error.type}: {error.message}", None)

    def _finish(self, number: int, state: str, reason: str, best: float | None) -> None:
        curve, params = self._curves.pop(number), self._params.pop(number)
        facts = self._facts.pop(number)
        self._num_lost.pop(number, None)
        attributes = {
            **facts,
            **self._costs.of(params),
            "end_reason": reason,
            "best_value": best,
            "num_epochs": max(curve, default=0),
        }
        was_ruled_out = not curve and self._costs.infeasible(params) is not None
        self._num_ended_well += state != "FAIL" and not was_ruled_out
        value = best if state == "COMPLETE" else None
        violations = self._costs.violations(params) | self._violations(facts)
        self._study.finish(number, state, attributes, value, violations)
        self._running.discard(number)
        self._checkpoints.trial_ended(number, best if state == "COMPLETE" else None)
        outcome = "INFEASIBLE" if was_ruled_out else state
        self._observer.trial_ended(number, outcome, reason, best)
        if not self.num_missing and self._num_started < self._num_trials:
            self._study.metadata.limits_reached = self._limits


def _without_numbers(text: str) -> str:
    """The message without what differs from process to process: pids, addresses, sizes."""
    return re.sub(r"0x[0-9a-f]+|\d+", "N", text)
