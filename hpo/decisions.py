"""The search's decisions, plain code over the study: Ray's hooks only pass on to it."""

import math
import re
from collections import Counter, deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from hpo.checkpoints import TrialCheckpoints
from hpo.config import SearchConfig
from hpo.halving import AsynchronousHalving
from hpo.progress import SearchObserver
from hpo.search_space import Params
from hpo.study import Proposal, SearchStudy, TrialSummary
from hpo.trial_report import TrialError, TrialReport
from sgformer.config import maximises

if TYPE_CHECKING:
    from hpo.freeze_thaw import Choice, FreezeThaw

# After this many failures and no other end, the search is broken, not the trials.
MAX_FIRST_FAILURES: Final = 5
# Trials that keep their checkpoints while they wait.
MAX_PAUSED: Final = 64


class Decisions:
    """Which trial starts next, which goes on, and how each one ended.

    What is told is in the study before the next decision rests on it. Trials that an earlier
    run left behind are continued first, and its curves fill the rungs.

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
    ) -> None:
        self._config, self._metric = config, config.study.metric
        self._num_trials = config.study.num_trials
        self._max_retries = config.study.max_retries
        self._study, self._num_slots, self._observer = study, num_slots, observer
        self._checkpoints = checkpoints
        study.on_outage = observer.note
        self._maximise = maximises(self._metric)
        self._halving = AsynchronousHalving(
            config.scheduler, config.train.max_epochs, maximise=self._maximise
        )
        self._thaw = _freeze_thaw(config)
        self._choice: Choice | None = None
        self._favourite: int | None = None
        self._undecided: set[int] = set()
        self._limits = config.limits
        self._is_over = False
        self._interrupted = deque(study.interrupted())
        self._curves: dict[int, dict[int, float]] = {}
        self._facts: dict[int, dict[str, Any]] = {}
        self._params: dict[int, Params] = {}
        self._num_lost: Counter[int] = Counter()
        earlier = study.trials()
        self._num_started = len(earlier)
        self._num_ended_well = sum(t.state in {"COMPLETE", "PRUNED"} for t in earlier)
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
            self._halving.goes_on(trial.number, curve)
        self._num_epochs = sum(t.num_epochs for t in earlier if not t.is_carried_over)
        self._running: set[int] = set()
        if self._thaw is not None:
            self._take_up(self._thaw, earlier)
            self._look_for_a_favourite(self._thaw)
        self.paused: str | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray pickles what its Tuner holds, and the study alone is the memory.

        It also keeps the storage's password and the observer's terminal out of Ray's files.
        """
        return {}

    @property
    def finished(self) -> bool:
        """Whether no further trial will start."""
        if self._interrupted:
            return False
        if self._thaw is None:
            return self._num_started >= self._num_trials or self._is_spent
        return self._is_over or self._thaw.is_closing

    @property
    def num_missing(self) -> int:
        """Trials that have yet to end."""
        not_started = max(0, self._num_trials - self._num_started)
        if self._is_spent:
            not_started = 0
        missing = not_started + len(self._interrupted) + len(self._running)
        if self._thaw is None:
            return missing
        if self._is_over:
            return len(self._interrupted) + len(self._running)
        return max(1, missing + len(self._thaw.paused_trials()))

    @property
    def broken(self) -> str | None:
        """Why going on makes no sense: the first trials all failed alike; else None."""
        failures = self._first_failures
        if self._num_ended_well or len(failures) < min(MAX_FIRST_FAILURES, self._num_trials):
            return None
        return failures[0] if len(set(map(_without_numbers, failures))) == 1 else None

    def ranking(self) -> tuple[int, ...]:
        """Numbers of trials, the most promising first; by the model if there is one."""
        if self._thaw is not None:
            return self._thaw.ranking()
        sign = 1.0 if self._maximise else -1.0
        values = {t.number: t.attributes.get("best_value") for t in self._study.trials()}
        values |= {number: self._best(curve) for number, curve in self._curves.items()}
        known = {number: value for number, value in values.items() if value is not None}
        return tuple(sorted(known, key=lambda number: (-sign * known[number], number)))

    def next_trial(self) -> Proposal | None:
        """The trial to start now; None while every slot is taken or when there is none left."""
        if self.finished or self.paused or len(self._running) >= self._num_slots:
            return None
        proposal = self._next_proposal()
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
        has_news = self._record(report)
        if self._thaw is None:
            goes_on = self._halving.goes_on(number, self._curves[number])
            return goes_on and not self._is_spent
        if not has_news and number not in self._undecided:
            return True  # it has told what it resumed, and has competed already
        self._undecided.discard(number)
        self._close_in_time(self._thaw)
        if self._thaw.last_one not in (None, number) and number != 0:
            self._thaw.paused(number)
            return False
        return not self._thaw.is_at_level(number) or self._wins(self._thaw, number)

    def on_end(self, report: TrialReport) -> None:
        """A trial's last report: it ended by itself, or `on_report` stopped or paused it."""
        self._record(report)
        number, reason = report.number, report.end_reason
        if reason == "paused" and report.error is not None:
            self.paused = self.paused or report.error.message
            return
        if self._thaw is not None and number in self._thaw.paused_trials():
            self._running.discard(number)
            self._checkpoints.trial_paused(number)
            self._study.keep_facts(number, self._facts[number])
            self._observer.trial_paused(number)
            chosen = None if self._choice is None else self._choice.number
            least = self._thaw.least_promising(besides=chosen)
            if least is not None and len(self._thaw.paused_trials()) > MAX_PAUSED:
                self._give_up(least)
            self._settle_after_last_one()
            return
        curve = self._curves[number]
        best = self._best(curve)
        if reason == "failed":
            self._fail(number, report.error or TrialError("Unknown", "no reason was given"))
        elif reason in {"completed", "early_stopped"} and best is not None:
            self._finish(number, "COMPLETE", reason, best)
        elif reason == "diverged" or best is None:
            self._finish(number, "PRUNED", "diverged", best)
        else:
            where = "the budget's end" if self._is_spent else f"rung {max(curve)}"
            self._finish(number, "PRUNED", f"stopped at {where}", best)

    def on_lost(self, number: int, error: TrialError) -> None:
        """A trial's worker is gone: the trial goes on in the next free slot, a few times."""
        self._num_lost[number] += 1
        if self._num_lost[number] > self._max_retries:
            self._fail(number, error)
            return
        self._running.discard(number)
        num_epochs = max(self._curves[number], default=0)
        self._interrupted.append(Proposal(number, self._params[number], num_epochs))

    def _next_proposal(self) -> Proposal | None:
        if self._thaw is not None and not self._interrupted:
            return self._chosen(self._thaw)
        if not self._has_room():
            return None
        return self._interrupted.popleft() if self._interrupted else self._start(None)

    def _start(self, params: Params | None) -> Proposal:
        proposal = self._study.ask(params)
        self._num_started += 1
        self._curves[proposal.number] = {}
        return proposal

    def _take_up(self, thaw: "FreezeThaw", trials: Sequence[TrialSummary]) -> None:
        """Trials of an earlier run: paused ones are paused, others are yet to be continued."""
        for trial in trials:
            thaw.started(trial.number, trial.params)
            thaw.reported(trial.number, trial.curve)
            if trial.state != "RUNNING":
                reason = str(trial.attributes.get("end_reason"))
                _tell_end(thaw, trial.number, trial.state, reason, trial.value)
        by_number = {trial.number: trial for trial in trials}
        for proposal in tuple(self._interrupted):
            number = proposal.number
            facts = by_number[number].facts_of_pause
            if facts is None:
                # Where trials compete, whether it has is not known: it does, when its worker
                # tells what it resumed.
                if thaw.is_at_level(number):
                    self._undecided.add(number)
                continue
            thaw.paused(number)
            self._checkpoints.trial_paused(number)
            self._interrupted.remove(proposal)
            self._params[number], self._facts[number] = proposal.params, facts
        thaw.model_state = self._study.model_state

    def _wins(self, thaw: "FreezeThaw", number: int) -> bool:
        """Whether a trial that competes is itself what is best to run next."""
        thaw.paused(number)
        if not self._interrupted:
            self._choice = self._choose(thaw)
            if self._choice is not None and self._choice.number == number:
                self._choice = None
                thaw.resumed(number)
                return True
        return False

    def _choose(self, thaw: "FreezeThaw") -> "Choice | None":
        """The next trial to run; None where there is none."""
        self._look_for_a_favourite(thaw)
        self._close_in_time(thaw)
        if thaw.last_one is not None:
            return thaw.last_choice()
        may_start = self._num_started < self._num_trials
        if self._study.has_waiting and may_start:
            return thaw.any_new()
        choice = thaw.choose(may_start=may_start)
        if thaw.model_state is not None:
            self._study.model_state = thaw.model_state
        return choice

    def _look_for_a_favourite(self, thaw: "FreezeThaw") -> None:
        """Towards the end of the budget: the surest trial that it can bring to its end."""
        left = self._num_epochs_left
        if left > 2 * self._config.train.max_epochs:
            return
        able = thaw.may_be_last()
        fits = (n for n in able if self._num_epochs_to_end(n) <= max(left, 0))
        self._favourite = next(fits, self._favourite)
        if self._favourite is None and left <= 0:
            self._favourite = min(able, key=self._num_epochs_to_end, default=None)

    @property
    def _is_spent(self) -> bool:
        """Whether the budget's epochs have been trained."""
        total = self._limits["total_epochs"]
        return total is not None and self._num_epochs >= total

    @property
    def _num_epochs_left(self) -> int:
        """Of the budget, without the epochs that are being trained, and all of the default's."""
        total = self._limits["total_epochs"]
        assert total is not None  # freeze_thaw always has one
        left = total - self._num_epochs - len(self._running)
        if 0 in self._running:
            left -= self._config.train.max_epochs - max(self._curves[0], default=0) - 1
        return left

    def _num_epochs_to_end(self, number: int) -> int:
        """Of a trial, beyond those that are set aside."""
        assert self._thaw is not None
        is_set_aside = number == 0 and 0 in self._running
        return 0 if is_set_aside else self._thaw.num_epochs_left(number)

    def _close_in_time(self, thaw: "FreezeThaw") -> None:
        """What is left of the budget is the favourite's when it needs it to come to its end."""
        favourite = self._favourite
        if thaw.last_one is not None or favourite is None:
            return
        if self._num_epochs_left <= self._num_epochs_to_end(favourite):
            thaw.last_one = favourite

    def _chosen(self, thaw: "FreezeThaw") -> Proposal | None:
        self._choice = self._choice or self._choose(thaw)
        if self._choice is None:
            self._settle(thaw)
            return None
        number, params = self._choice.number, self._choice.params
        if not self._has_room(number):
            return None
        self._choice = None
        if number is None:
            proposal = self._start(params)
            thaw.started(proposal.number, proposal.params)
            return proposal
        thaw.resumed(number)
        self._checkpoints.trial_resumed(number)
        return Proposal(number, self._params[number], max(self._curves[number], default=0))

    def _has_room(self, resumed: int | None = None) -> bool:
        """Whether a trial's checkpoints fit, if need be when paused ones are given up."""
        while not self._checkpoints.has_room(len(self._running), resumed):
            least = None if self._thaw is None else self._thaw.least_promising(besides=resumed)
            if least is None:
                # A paused trial that is alone has had room before.
                return resumed is not None and not self._running
            self._give_up(least)
        return True

    def _settle(self, thaw: "FreezeThaw") -> None:
        """Once nothing runs: what is paused will not be resumed."""
        if self._running or self._interrupted or self._is_over:
            return
        self._is_over = True
        for number in thaw.paused_trials():
            self._give_up(number)
        self._study.limits_reached = self._limits

    def _settle_after_last_one(self) -> None:
        if self._thaw is not None and self._thaw.is_closing:
            self._settle(self._thaw)

    def _give_up(self, number: int) -> None:
        curve = self._curves[number]
        self._finish(number, "PRUNED", f"paused at epoch {max(curve)}", self._best(curve))

    def _record(self, report: TrialReport) -> bool:
        """Whether it brings epochs that were not known."""
        number, curve = report.number, self._curves[report.number]
        values = report.values(self._metric)
        self._study.report(number, values)
        self._facts[number] |= report.facts
        news = {epoch: value for epoch, value in values.items() if epoch not in curve}
        curve |= news
        self._num_epochs += len(news)
        if self._thaw is not None:
            self._thaw.reported(number, news)
        for epoch, value in news.items():
            self._observer.epoch(number, epoch, value)
        return bool(news)

    def _best(self, curve: dict[int, float]) -> float | None:
        values = [value for value in curve.values() if not math.isnan(value)]
        return (max if self._maximise else min)(values, default=None)

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
        curve = self._curves.pop(number)
        del self._params[number]
        self._num_lost.pop(number, None)
        attributes = {
            **self._facts.pop(number),
            "end_reason": reason,
            "best_value": best,
            "num_epochs": max(curve, default=0),
        }
        self._num_ended_well += state != "FAIL"
        self._study.finish(number, state, attributes, best if state == "COMPLETE" else None)
        self._running.discard(number)
        self._checkpoints.trial_ended(number, best if state == "COMPLETE" else None)
        self._observer.trial_ended(number, state, reason, best)
        if self._thaw is not None:
            _tell_end(self._thaw, number, state, reason, best)
            if number == self._thaw.last_one and state != "COMPLETE":
                self._thaw.last_one = self._favourite = None  # another takes its place
            self._settle_after_last_one()
        elif self._is_spent and not self.num_missing:
            self._study.limits_reached = self._limits


def _freeze_thaw(config: SearchConfig) -> "FreezeThaw | None":
    if config.scheduler.name != "freeze_thaw":
        return None
    from hpo.freeze_thaw import FreezeThaw  # SciPy takes a second, and is not always needed

    return FreezeThaw(
        config.space,
        config.train.max_epochs,
        maximise=maximises(config.study.metric),
        seed=config.study.seed,
        first_level=config.scheduler.min_epochs,
    )


def _tell_end(
    thaw: "FreezeThaw", number: int, state: str, reason: str, value: float | None
) -> None:
    if state == "FAIL":
        thaw.failed(number)
    elif state == "COMPLETE" and value is not None:
        thaw.completed(number, value)
    else:
        thaw.pruned(number, diverged=reason == "diverged")


def _without_numbers(text: str) -> str:
    """The message without what differs from process to process: pids, addresses, sizes."""
    return re.sub(r"0x[0-9a-f]+|\d+", "N", text)
