"""Drives a random search on a simulated clock, with workers that fail and drivers that die."""

import heapq
import itertools
import math
import random
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from random_searches import ARCHITECTURES, Plan
from random_trials import Asker, Trial, is_noted_as_over

from hpo.config.search_space import default_params
from hpo.engine.checkpoints import TrialCheckpoints
from hpo.engine.engine import Engine
from hpo.study.study import SearchStudy
from hpo.study.trial import CARRIED_OVER_FROM, Proposal, TrialError, TrialReport, origin
from sgformer.config import maximises

SECONDS_A_POLL: Final = 0.2
MOST_POLLS: Final = 5
GONE: Final = TrialError("WorkerLost", "the worker is gone")
FULL: Final = TrialError("DiskFullError", "no room")


class KilledError(Exception):
    """The driver was killed in the middle of its work."""


class RandomSearch:
    """One search of a plan, from its first trial to the end of the last raise.

    Attributes:
        plan: The search's settings and faults.
        config: The present search file; raising the limits changes it.
        study: The study, in memory; reopened after each kill.
        decisions: The engine of the present driver.
        trials: The real course of each trial, by number.
        now: Seconds on the simulated clock.
        num_slots: The largest number of trials that ran at a time so far.
        num_hidden: Begun epochs that the study lacked after kills, summed over all kills.
        num_kills: Number of kills of the driver so far.
        seconds_hidden: Seconds searched that the present driver does not know of.
        num_raises: Number of times that the limits were raised so far.
        num_enqueued: Number of trials that another program enqueued.
        given_up: Numbers of the trials that existed when the limits were raised last.
        was_killed_closing: Whether a kill came between the last trial's end and the note in the
            study that the search is over.
        was_killed_choosing: Whether a kill came in a step that fitted the surrogate, whose state
            is written before its choice takes effect.
        was_raised_closing: Whether limits were raised while a last trial ran.
        had_ended: Whether the study was over before the present driver began, which then did
            nothing.
    """

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan, self._folder = plan, folder
        self._events = random.Random(plan.seed)
        self._asker = Asker(plan.seed, asks_often=plan.asks_often)
        self.num_raises = 0
        self.config = plan.configs[0]
        self.trials: dict[int, Trial] = {}
        self.now = 0.0
        self.num_slots = plan.num_slots
        self.num_hidden, self.num_kills, self.seconds_hidden = 0, 0, 0.0
        self.given_up: frozenset[int] = frozenset()
        self.num_enqueued = 0
        self.was_killed_closing, self.was_raised_closing = False, False
        self.was_killed_choosing = False
        self.study = SearchStudy.in_memory(self.config.study, self.config.space)
        self.study.metadata.architectures = ARCHITECTURES
        if plan.num_carried:
            self._carry_over()
        self._start(plan.num_slots)

    def step(self) -> str:
        """Runs the search up to the next event.

        Returns 'event', 'killed' (a new driver has taken over), or 'ended'.
        """
        model_state = self.study.metadata.model_state
        try:
            return self._step()
        except KilledError:
            self.was_killed_choosing |= self.study.metadata.model_state != model_state
            self._die()
            return "killed"

    def raise_limits(self) -> bool:
        """Resumes an ended search with the next limits; returns False if there are none."""
        if self.num_raises == len(self.plan.configs) - 1:
            return False
        self.num_raises += 1
        self.given_up = frozenset(trial.number for trial in self.study.trials())
        self._reopen()
        return True

    @property
    def changes_by_asking(self) -> list[str]:
        """Changes in the study that were made by mere questions to the engine."""
        return self._asker.changes

    @property
    def num_epochs(self) -> int:
        """Epochs begun so far in all trials, without the epochs of carried-over trials."""
        return sum(trial.num_epochs for trial in self.trials.values())

    @property
    def num_lost(self) -> int:
        """Begun epochs that no checkpoint holds."""
        return sum(trial.num_lost for trial in self.trials.values())

    @property
    def seconds(self) -> float:
        """Seconds of training of all epochs begun so far."""
        return sum(trial.seconds for trial in self.trials.values())

    def _carry_over(self) -> None:
        """Copies the trials of another, interrupted search into this study."""
        quiet = {"killed": 0, "lost": 0, "full": 0, "num_carried": 0, "enqueued": 0}
        other = RandomSearch(replace(self.plan, **quiet), self._folder)
        while other.num_epochs < self.plan.num_carried and other.step() != "ended":
            pass
        for trial in other.study.trials():
            source = {CARRIED_OVER_FROM: origin("another", trial)}
            self.study.add(trial, dict(trial.params), source)
        self.trials = other.trials
        for truth in self.trials.values():  # epochs after the last checkpoint are lost
            truth.begun = truth.carried = truth.saved
        ended = [t.number for t in self.study.trials() if t.state != "RUNNING"]
        self.given_up = frozenset(ended)

    def _enqueue(self) -> None:
        """Enqueues a trial with given params, as another program may do."""
        rate = 10 ** self._events.uniform(-4, -2)
        parameter = self.config.space["optimizer.learning_rate"]
        if not parameter.contains(rate):
            rate = 1e-3
        self.num_enqueued += 1
        self.study.optuna_study.enqueue_trial({"optimizer.learning_rate": rate})

    def _start(self, num_slots: int) -> None:
        """Starts a new driver on the study, with new workers."""
        config = self.config
        self.study.enqueue_first_trials(default_params(config.train, config.space))
        checkpoints = TrialCheckpoints(
            self._folder / "trials", config.retrain.top_k, maximise=maximises(config.study.metric)
        )
        self._is_starting = True
        self.decisions = Engine(
            config, self.study, num_slots, _Watcher(self._may_be_killed), checkpoints,
            lambda: self.now,
        )  # fmt: skip
        self._is_starting = False
        self._num_idle = min(num_slots, self.decisions.num_missing)
        self.had_ended = is_noted_as_over(self.study, self.config)
        self._num_polls = 0
        self._order = itertools.count()
        self._queue: list[tuple[float, int, int, bool]] = []

    def _step(self) -> str:
        decisions = self.decisions
        if decisions.paused or decisions.broken:
            raise KilledError  # the user removes the cause, and resumes
        if self.had_ended or not decisions.num_missing:
            decisions.settle()
            return "ended"
        self._ask_for_trials()
        if not self._queue:
            self._poll()
            return "event"
        self._num_polls = 0
        if self._events.random() < self.plan.enqueued:
            self._enqueue()
        self._may_be_killed()
        self.now, _, number, is_epoch = heapq.heappop(self._queue)
        if is_epoch:
            self._end_epoch(number)
        else:
            self._report(number, range(1, self.trials[number].saved + 1))
        return "event"

    def _poll(self) -> None:
        self.now += SECONDS_A_POLL
        self._num_polls += 1
        missing = self.decisions.num_missing
        assert not missing or self._num_polls < MOST_POLLS, (
            f"it does not end: nothing runs, {missing} trials are missing, {self._num_idle} "
            f"workers wait in vain, finished is {self.decisions.finished}"
        )

    def _ask_for_trials(self) -> None:
        """Each idle worker asks for a trial, or ends if the search has no more trials."""
        for _ in range(self._num_idle):
            if self.decisions.finished:
                self._num_idle -= 1
                continue
            self._asker.ask(self.decisions, self.study)
            proposal = self.decisions.next_trial()
            if proposal is None:
                self._asker.ask(self.decisions, self.study, polls=True)
                continue
            self._num_idle -= 1
            self._take(proposal)

    def _take(self, proposal: Proposal) -> None:
        """A worker takes a trial: it reports a resumed trial's epochs, or begins to train."""
        number = proposal.number
        if number not in self.trials:
            self.trials[number] = Trial(self.plan.trainings.of(proposal.params))
        if self.trials[number].saved:
            heapq.heappush(self._queue, (self.now, next(self._order), number, False))
        else:
            self._train(number)

    def _train(self, number: int) -> None:
        trial = self.trials[number]
        trial.begun += 1
        end = self.now + trial.training.seconds[trial.saved]
        heapq.heappush(self._queue, (end, next(self._order), number, True))

    def _end_epoch(self, number: int) -> None:
        trial, plan = self.trials[number], self.plan
        fate = self._events.random()
        epoch = trial.saved + 1
        if fate < plan.lost:
            if fate < plan.lost / 2 and trial.training.fails_at != epoch:
                trial.saved = epoch  # the worker saved the epoch and died before reporting it
            self._num_idle += 1
            trial.end, trial.error = "lost", GONE
            self.decisions.on_lost(number, GONE)
        elif fate < plan.lost + plan.full:
            self._break(number, "paused", FULL)
        elif trial.training.fails_at == epoch:
            self._break(number, "failed", TrialError("ValueError", f"broke in epoch {epoch}"))
        else:
            trial.saved = epoch
            self._report(number, range(epoch, epoch + 1))

    def _break(self, number: int, reason: str, error: TrialError) -> None:
        trial = self.trials[number]
        trial.end, trial.error = reason, error
        facts = {"num_epochs_trained": trial.begun}
        self._num_idle += 1
        self.decisions.on_end(TrialReport(number, (), reason, facts, error))

    def _report(self, number: int, epochs: range) -> None:
        """Reports epochs to the engine; then the trial goes on or ends."""
        trial = self.trials[number]
        rows = trial.training.rows
        trial.told |= {epoch: rows[epoch - 1] for epoch in epochs}
        report = TrialReport(
            number,
            tuple(dict(rows[epoch - 1]) for epoch in epochs),
            trial.end_reason(self.config.train.max_epochs),
            trial.facts(self.plan.trainings.watched(self.config.study.metric)),
        )
        trial.end = report.end_reason
        if report.end_reason is None and self.decisions.on_report(report):
            self._train(number)
            return
        trial.end = report.end_reason or "stopped"
        trial.stopped_at = trial.saved
        self._num_idle += 1
        self.decisions.on_end(report)

    def _may_be_killed(self) -> None:
        """Raises KilledError with the plan's probability, once the driver has started."""
        if self._is_starting:
            return
        # Kills are likelier while the last trial of a pausing search runs, a short time.
        is_closing = self.study.metadata.last_one is not None
        chance = (
            max(self.plan.killed, 0.3) if is_closing and self.plan.killed else self.plan.killed
        )
        if self._events.random() < chance and self.num_kills < self.plan.num_kills:
            raise KilledError

    def _die(self) -> None:
        """Ends the driver and its workers, and starts another driver on the study.

        An epoch in progress is either saved without a report, or lost. In a calm plan it is saved,
        or counts as not begun.
        """
        self.num_kills += 1
        for _, _, number, is_epoch in self._queue:
            trial = self.trials[number]
            is_whole = trial.training.fails_at != trial.saved + 1
            if is_epoch and trial.begun > trial.saved:
                if is_whole and self._events.random() < 0.5:
                    trial.saved += 1
                elif self.plan.is_calm:
                    trial.begun -= 1
        self._hide()
        last, trials = self.study.metadata.last_one, self.study.trials()
        has_ended = any(t.number == last and t.state == "COMPLETE" for t in trials)
        self.was_killed_closing |= has_ended and not is_noted_as_over(self.study, self.config)
        may_raise = not self.plan.is_calm and self.num_raises < len(self.plan.configs) - 1
        if may_raise and (last is not None or self._events.random() < 0.5):
            self.num_raises += 1
            self.was_raised_closing |= last is not None
        self._reopen()

    def _hide(self) -> None:
        """Counts the begun epochs that the study does not know of."""
        known: dict[int, float] = defaultdict(float)
        for trial in self.study.trials():
            told = float(trial.facts.get("num_epochs_trained", 0))
            known[trial.number] = max(trial.num_epochs, told)
        self.num_hidden += sum(
            max(0, math.ceil(trial.begun - known[n])) for n, trial in self.trials.items()
        )

    def _reopen(self) -> None:
        self.seconds_hidden = max(0.0, self.now - self.study.metadata.seconds_searched)
        num_slots = self.plan.num_slots
        if not self.plan.is_calm:
            num_slots = self._events.randint(1, 5)
        self.num_slots = max(self.num_slots, num_slots)
        self.config = self.plan.configs[self.num_raises]
        old, config = self.study, self.config
        self.study = SearchStudy(old.optuna_study, old.storage, config.study, config.space)
        self._start(num_slots)


class _Watcher:
    """A SearchObserver; the driver may be killed in each of its calls, once it has started."""

    def __init__(self, may_be_killed: Any) -> None:
        self._may_be_killed = may_be_killed

    def __getattr__(self, name: str) -> Any:
        return lambda *args: self._may_be_killed()
