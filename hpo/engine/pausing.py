"""The decisions of a search that pauses trials: what its policy chooses, within the budget."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from hpo.config.schema import SearchConfig
from hpo.config.search_space import Params
from hpo.engine.budget import GPU_TIME, SECONDS_AN_HOUR, Limit
from hpo.engine.checkpoints import TrialCheckpoints
from hpo.engine.decisions import Decisions
from hpo.engine.observer import SearchObserver
from hpo.schedulers.base import Choice, PausingPolicy
from hpo.schedulers.first_rung import (
    choose_first_level,
    first_level_text,
    is_due,
    read_first_levels,
    with_first_level,
)
from hpo.schedulers.freeze_thaw import NUM_STARTUP_TRIALS, FreezeThaw
from hpo.schedulers.promotion import Promotion
from hpo.study.study import SearchStudy
from hpo.study.trial import Proposal, TrialReport, TrialSummary
from sgformer.config import maximises

# Trials that keep their checkpoints while they wait.
MAX_PAUSED: Final = 64
# Of what is left: the most for trials that begin before any other has told the model something.
# Source: docs/performance.md.
SHARE_OF_BLIND: Final = 0.5
# Of a full training: what the search keeps at its end to go on with the best of those begun.
# Source: docs/performance.md.
SHARE_TO_COMPARE: Final = 0.3


class _Room(NamedTuple):
    """What is left of a limit, and what of it the trials that run take until they stop."""

    limit: Limit
    left: float
    running: float


class PausingDecisions(Decisions):
    """Trials run to a level and compete there: one goes on, or makes way for what is better.

    A paused trial is RUNNING in the study until the search ends, and its folder keeps what it is
    resumed from. The budget always leaves room for the default configuration's training, and for
    that of the trial that is expected to end best, unless finalists are trained on fresh seeds.
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
        super().__init__(config, study, num_slots, observer, checkpoints, clock)
        self._policy = _make_policy(config, study, self._costs.is_allowed)
        self._choice: Choice | None = None
        self._max_epochs = config.train.max_epochs
        self._undecided: set[int] = set()
        self._is_over = False
        self._too_little: str | None = None  # is to be gained, when that ends the search
        self._first_levels = read_first_levels(study.metadata.first_levels)
        if isinstance(self._policy, FreezeThaw):
            self._policy.set_first_levels(self._first_levels)
        self._take_up(study.trials())

    @property
    def finished(self) -> bool:
        """Whether no further trial will start, or be resumed."""
        return not self._interrupted and (self._is_over or self._policy.is_closing)

    @property
    def num_missing(self) -> int:
        """Trials that have yet to end, as far as that is known."""
        going_on = len(self._interrupted) + len(self._running)
        if self._is_over:
            return going_on
        return max(1, self._num_to_start + going_on + len(self._policy.paused_trials()))

    @property
    def is_exhausted(self) -> bool:
        """Whether every configuration of the space has been tried."""
        is_tried = isinstance(self._policy, FreezeThaw) and self._policy.is_exhausted
        return super().is_exhausted or (is_tried and not self._study.has_waiting)

    def ranking(self) -> tuple[int, ...]:
        """Numbers of trials, the one first that is expected to end best."""
        return self._policy.ranking()

    def on_end(self, report: TrialReport) -> None:
        """A trial's last report: it ended by itself, or `on_report` paused it."""
        number = report.number
        if not self._policy.is_paused(number):
            super().on_end(report)
            return
        self._record(report)
        self._running.discard(number)
        self._checkpoints.trial_paused(number)
        self._study.pause(number, self._facts[number])
        self._observer.trial_paused(number)
        chosen = None if self._choice is None else self._choice.number
        least = self._policy.least_promising(besides=chosen)
        if least is not None and len(self._policy.paused_trials()) > MAX_PAUSED:
            self._give_up(least)
        self._settle_after_last_one()

    def _take_up(self, trials: Sequence[TrialSummary]) -> None:
        """Trials of an earlier run: paused ones are paused, others are yet to be continued."""
        for trial in trials:
            self._policy.started(trial.number, trial.params)
            self._policy.reported(trial.number, trial.curve)
            if trial.state != "RUNNING":
                reason = str(trial.attributes.get("end_reason"))
                self._tell_end(trial.number, trial.state, reason, trial.value)
        by_number = {trial.number: trial for trial in trials}
        running = [trial for trial in trials if trial.state == "RUNNING"]
        for proposal in tuple(self._interrupted):
            number = proposal.number
            facts = by_number[number].facts_of_pause
            if facts is None:
                # Where trials compete, whether it has is not known: it does, when its worker
                # tells what it resumed.
                if self._policy.is_at_level(number):
                    self._undecided.add(number)
                continue
            self._policy.paused(number)
            self._checkpoints.trial_paused(number)
            self._interrupted.remove(proposal)
            self._params[number], self._facts[number] = proposal.params, facts
        self._policy.model_state = self._study.metadata.model_state
        if any(trial.number == self._study.metadata.last_one for trial in running):
            self._policy.last_one = self._study.metadata.last_one

    def _record(self, report: TrialReport) -> Mapping[int, float]:
        news = super()._record(report)
        if news:
            self._policy.reported(report.number, news)
        return news

    def _goes_on(self, number: int, *, has_news: bool) -> bool:
        if not has_news and number not in self._undecided:
            return True  # it has told what it resumed, and has competed already
        self._undecided.discard(number)
        # Trials that start before any is timed are not planned by the hours that they take.
        if self._is_used_up or not (number == 0 or self._leaves_the_defaults):
            return False
        return not self._policy.competes(number) or self._wins(number)

    def _next_proposal(self) -> Proposal | None:
        if not self._interrupted:
            return self._chosen()
        return self._interrupted.popleft() if self._has_room() else None

    def _wins(self, number: int) -> bool:
        """Whether a trial that competes is itself what is best to run next."""
        self._policy.paused(number)
        if not self._interrupted:
            self._choice = self._choose()
            if self._choice is not None and self._choice.number == number:
                self._choice = None
                self._policy.resumed(number)
                return True
        return False

    def _choose(self) -> Choice | None:
        """The next trial to run; None where there is none, or none before those that run stop."""
        if self._policy.last_one is None:
            self._choose_first_level()
            if isinstance(self._policy, FreezeThaw) and self._config.scheduler.cost_aware:
                self._policy.weigh_costs(self._budget.seconds_an_epoch())
            choice = self._affordable_choice()
            is_waiting = choice is None and self._policy.running_trials()
            if choice is not None or is_waiting or not self._ends_with_one:
                return choice
            self._close_with(self._favourite())
        return self._policy.last_choice()

    @property
    def _ends_with_one(self) -> bool:
        """Whether the search itself brings the trial to its end that is expected to end best.

        The finalists of freeze_thaw need not have come to their ends, and are trained anew.
        """
        picks_finalists = self._config.compares_finalists and isinstance(self._policy, FreezeThaw)
        return not picks_finalists or self._policy.has_lost_default

    def _choose_first_level(self) -> None:
        """Anew whenever twice as many trials as before have come far enough."""
        thaw, config, curves = self._policy, self._config, self._policy.curves()
        if not isinstance(thaw, FreezeThaw) or not is_due(config, self._first_levels, curves):
            return
        chosen = choose_first_level([curves], self._max_epochs, from_trial=thaw.next_number)
        if chosen is None:
            return
        self._first_levels = (*self._first_levels, chosen)
        self._study.metadata.first_levels = [
            one.model_dump(mode="json") for one in self._first_levels
        ]
        thaw.set_first_levels(self._first_levels)
        self._observer.note(f"first decision at {first_level_text(config, self._first_levels)}")

    def _close_with(self, number: int | None) -> None:
        """Has a trial be the last one, also of a search that is resumed."""
        self._policy.last_one = self._study.metadata.last_one = number

    def _affordable_choice(self) -> Choice | None:
        """What is best to run of what the budget allows."""
        first_level = self._policy.first_level
        rooms = self._rooms(self._policy.num_epochs_to_last_level if self._ends_with_one else 0)
        may_start = self._num_to_start > 0 and self._fits(rooms, None, first_level)
        if may_start and self._study.has_waiting:
            return Choice()
        may_start = may_start and not self._is_blind(rooms)
        paused = self._policy.paused_trials()
        kept = round(SHARE_TO_COMPARE * self._max_epochs) if paused else 0
        may_start = may_start and self._fits(rooms, None, first_level + kept)
        able = tuple(n for n in paused if self._fits(rooms, n, self._policy.num_epochs_ahead(n)))
        if not (may_start or able) or not self._is_worth_it(able, may_start=may_start):
            return None
        choice = self._policy.choose(able, may_start=may_start)
        self._keep_model_state()
        return choice

    def _is_worth_it(self, able: Sequence[int], *, may_start: bool) -> bool:
        """Whether `budget.stop_when` lets a trial start or be resumed."""
        stop_when, thaw = self._config.budget.stop_when, self._policy
        self._too_little = None
        if stop_when is None or not isinstance(thaw, FreezeThaw):
            return True
        rates = [
            gain / hours if (hours := self._hours_to_end(number)) else math.inf
            for number, gain in thaw.expected_gains(able).items()
            if may_start or number is not None
        ]
        if not rates or max(rates) >= stop_when.gain_per_gpu_hour:
            return True
        self._too_little = (
            f"the search ends: {max(rates):.2g} {self._metric} is expected of a GPU-hour, below "
            f"budget.stop_when.gain_per_gpu_hour={stop_when.gain_per_gpu_hour:g}"
        )
        return False

    def _hours_to_end(self, number: int | None) -> float:
        """Of a GPU, for a paused trial (None: a new one)."""
        num_epochs = self._max_epochs if number is None else self._policy.num_epochs_left(number)
        return num_epochs * self._budget.an_epoch(GPU_TIME, number) / SECONDS_AN_HOUR

    def _rooms(self, to_end: int = 0) -> tuple[_Room, ...]:
        """What is left of each limit, besides so many epochs of the best trial so far."""
        budget, policy = self._budget, self._policy
        best = self._best_so_far if to_end else None
        running = [n for n in policy.running_trials() if n not in self._undecided]
        return tuple(
            _Room(
                limit,
                budget.left(limit) - to_end * budget.an_epoch(limit, best),
                limit.together(
                    [policy.num_epochs_ahead(n) * budget.an_epoch(limit, n) for n in running]
                ),
            )
            for limit in budget.limits
        )

    def _is_blind(self, rooms: Sequence[_Room]) -> bool:
        """Whether a new trial had better wait for what the first ones will tell."""
        running = len(self._policy.running_trials())
        is_early = isinstance(self._policy, FreezeThaw) and len(self._policy.curves()) == running
        if not is_early or running < NUM_STARTUP_TRIALS:
            return False
        num_epochs = (running + 1) * self._policy.first_level
        return any(
            num_epochs * self._budget.an_epoch(room.limit) > SHARE_OF_BLIND * room.left
            for room in rooms
            if room.limit.adds_up
        )

    def _fits(self, rooms: Sequence[_Room], number: int | None, num_epochs: int) -> bool:
        """Whether a trial (None: a new one) can train so far, beside those that run."""
        return all(
            room.left
            >= room.limit.together(
                [room.running, num_epochs * self._budget.an_epoch(room.limit, number)]
            )
            for room in rooms
        )

    @property
    def _best_so_far(self) -> int | None:
        """The trial with the best value that may still be trained, for what its epochs take."""
        best = {n: self._best(n) for n in self._policy.paused_trials()}
        known = {n: value for n, value in best.items() if value is not None}
        return (max if self._maximise else min)(known, key=lambda n: known[n], default=None)

    def _favourite(self) -> int | None:
        """The trial of the best end that what is left brings there; else the best that is there.

        Where the best is at its end already, what is left of a budget is for the next one.
        """
        able, rooms = self._policy.may_be_last(), self._rooms()
        self._keep_model_state()
        least = 1 if rooms and self._too_little is None else 0
        to_end = {n: self._num_epochs_to_end(n) for n in able}
        fits = (n for n in able if to_end[n] >= least and self._fits(rooms, n, to_end[n]))
        return next(fits, next((n for n in able if to_end[n] == 0), None))

    def _keep_model_state(self) -> None:
        if self._policy.model_state is not None:
            self._study.metadata.model_state = self._policy.model_state

    def _num_epochs_to_end(self, number: int) -> int:
        """Of a trial, beyond those that are set aside."""
        is_set_aside = number == 0 and 0 in self._policy.running_trials()
        return 0 if is_set_aside else self._policy.num_epochs_left(number)

    def _chosen(self) -> Proposal | None:
        self._choice = self._choice or self._choose()
        if self._choice is None:
            self._settle()
            return None
        number, params = self._choice.number, self._choice.params
        if not self._has_room(number):
            return None
        self._choice = None
        if number is None:
            proposal = self._start(params)
            self._policy.started(proposal.number, proposal.params)
            return proposal
        self._policy.resumed(number)
        self._checkpoints.trial_resumed(number)
        return Proposal(number, self._params[number], self._num_epochs(number))

    def _has_room(self, resumed: int | None = None) -> bool:
        """Whether a trial's checkpoints fit, if need be when paused ones are given up."""
        while not self._checkpoints.has_room(len(self._running), resumed):
            least = self._policy.least_promising(besides=resumed)
            if least is None:
                return not self._running  # what is alone has had room before
            self._give_up(least)
        return True

    def _settle(self) -> None:
        """Once nothing runs: what is paused will not be resumed."""
        if self._running or self._interrupted or self._is_over:
            return
        self._is_over = True
        if self._too_little is not None:
            self._observer.note(self._too_little)
        for number in self._policy.paused_trials():
            self._give_up(number)
        self._study.metadata.limits_reached = self._limits

    def _settle_after_last_one(self) -> None:
        if self._policy.is_closing:
            self._settle()

    def _give_up(self, number: int) -> None:
        curve = self._curves[number]
        if self._choice is not None and self._choice.number == number:
            self._choice = None
        self._finish(number, "PRUNED", f"paused at epoch {max(curve)}", self._best(number))

    def _finish(self, number: int, state: str, reason: str, best: float | None) -> None:
        super()._finish(number, state, reason, best)
        self._tell_end(number, state, reason, best)
        if number == self._policy.last_one and state != "COMPLETE":
            self._close_with(None)  # another takes its place
        self._settle_after_last_one()

    def _tell_end(self, number: int, state: str, reason: str, value: float | None) -> None:
        if state == "FAIL":
            self._policy.failed(number)
        elif state == "COMPLETE" and value is not None:
            self._policy.completed(number, value)
        else:
            self._policy.pruned(number, diverged=reason == "diverged")


def _make_policy(
    config: SearchConfig, study: SearchStudy, is_allowed: Callable[[Params], bool] | None
) -> PausingPolicy[Any]:
    """By `scheduler.name`; what promotion starts is the sampler's, and ruled out after it."""
    max_epochs, maximise = config.train.max_epochs, maximises(config.study.metric)
    if config.scheduler.name == "asha_promotion":
        scheduler = with_first_level(config.scheduler, study.metadata.first_levels)
        return Promotion(scheduler, max_epochs, maximise=maximise)
    return FreezeThaw(
        config.space,
        max_epochs,
        maximise=maximise,
        seed=config.study.seed,
        first_level=config.scheduler.min_epochs,
        is_allowed=is_allowed,
    )
