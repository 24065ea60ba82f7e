"""The planner: what a free slot runs next, and which trial the search ends with."""

import math
from collections.abc import Sequence

from hpo.config.schema import SearchConfig
from hpo.engine.admission import Admission, Admitted
from hpo.engine.budget import GPU_TIME, SECONDS_AN_HOUR, Budget
from hpo.engine.ledger import TrialLedger
from hpo.engine.observer import SearchObserver
from hpo.schedulers.base import Choice, Resume, Scheduler, Start, Wait
from hpo.schedulers.first_rung import first_rung_text
from hpo.study.study import SearchStudy
from hpo.study.trial import TrialStatus, TrialSummary


class Planner:
    """Lets the scheduler choose among the trials that the budget admits.

    Once the budget admits no more trials, a search that ends by training one trial to its end
    chooses this last trial: the one with the best expected end among those that the rest of the
    budget can train so far. The study keeps the choice, which holds as long as the search is
    resumed with the same limits.

    Args:
        config: The config of the search.
        study: Keeps the last trial, the first rungs and the surrogate's state.
        ledger: Knows the trials.
        scheduler: Chooses among the admitted trials.
        budget: Knows the cost of an epoch.
        admission: Knows what the budget lets run.
        observer: Is told of a new first rung.

    Attributes:
        too_little: Why no trial is worth its GPU-hours (`budget.stop_when`), in words; None: a
            trial is, or `stop_when` is not set.
    """

    def __init__(
        self,
        config: SearchConfig,
        study: SearchStudy,
        ledger: TrialLedger,
        scheduler: Scheduler,
        budget: Budget,
        admission: Admission,
        observer: SearchObserver,
    ) -> None:
        self._config, self._study, self._ledger = config, study, ledger
        self._scheduler, self._budget, self._admission = scheduler, budget, admission
        self._observer, self._objective = observer, config.study.objective
        self._max_epochs = config.train.max_epochs
        self.too_little: str | None = None

    def take_up(self, trials: Sequence[TrialSummary]) -> None:
        """Restores the surrogate's state and the last trial that an earlier run has chosen.

        The last trial holds under the limits that it was chosen with; under others it is one
        trial among many. If it is COMPLETE under the same limits, the search is over.
        """
        facts = self._study.metadata
        if facts.model_state is not None:
            self._scheduler.model_state = facts.model_state
        has_same_limits = facts.last_one_limits == self._config.limits
        is_left = facts.last_one in self._ledger.live and facts.last_one_limits is None
        complete = (t.number for t in trials if t.state == TrialStatus.COMPLETE)
        known = {*self._ledger.live, *complete}
        if is_left or (has_same_limits and facts.last_one in known):
            self._scheduler.last_one = facts.last_one

    @property
    def is_closing(self) -> bool:
        """Whether the last trial runs or has ended, so that no other starts or is resumed."""
        last = self._scheduler.last_one
        record = None if last is None else self._ledger.live.get(last)
        return last is not None and (record is None or not record.is_paused)

    def choose(self) -> Choice:
        """The choice for a free slot; Wait: nothing, until a running trial stops or for good."""
        if self._scheduler.last_one is None:
            self._choose_rungs()
            if self._config.scheduler.cost_aware:
                self._scheduler.weigh_costs(self._budget.seconds_an_epoch())
            choice = self._best_admitted()
            is_waiting = isinstance(choice, Wait) and bool(self._ledger.running)
            if not isinstance(choice, Wait) or is_waiting or not self._ends_with_one:
                return choice
            self._close_with(self._favourite())
        last = self._scheduler.last_one
        return Wait() if last is None or self.is_closing else Resume(last)

    def lose(self, number: int) -> None:
        """Has another last trial chosen if this one, which ended early, was to be the last."""
        if number == self._scheduler.last_one:
            self._close_with(None)

    @property
    def _ends_with_one(self) -> bool:
        return self._scheduler.ends_with_one(compares_finalists=self._config.compares_finalists)

    def _close_with(self, number: int | None) -> None:
        """Makes a trial the last one, also of a search that is resumed with the same limits.

        The number is written before the limits. So if the driver dies between the two writes,
        the last trial of earlier, lower limits never counts as that of the present ones.
        """
        self._scheduler.last_one = self._study.metadata.last_one = number
        self._study.metadata.last_one_limits = self._config.limits

    def _choose_rungs(self) -> None:
        chosen = self._scheduler.choose_rungs()
        if chosen is None:
            return
        self._study.metadata.first_levels = [one.model_dump(mode="json") for one in chosen]
        self._scheduler.set_first_rungs(chosen)
        self._observer.note(f"first decision at {first_rung_text(self._config, chosen)}")

    def _best_admitted(self) -> Choice:
        """The scheduler's choice among the trials that the budget admits."""
        kept = self._scheduler.most_epochs_to_end if self._ends_with_one else 0
        admitted = self._admission.admitted(
            kept_to_end=kept, best=self._best_so_far if kept else None
        )
        if admitted.may_start_waiting and self._study.has_waiting:
            return Start()
        if not (admitted.may_start or admitted.paused) or not self._is_worth_it(admitted):
            return Wait()
        choice = self._scheduler.next(admitted.paused, may_start=admitted.may_start)
        self._keep_model_state()
        return choice

    def _is_worth_it(self, admitted: Admitted) -> bool:
        """Whether `budget.stop_when` lets a trial start or be resumed."""
        stop_when, self.too_little = self._config.budget.stop_when, None
        if stop_when is None:
            return True
        rates = [
            gain / hours if (hours := self._hours_to_end(number)) else math.inf
            for number, gain in self._scheduler.expected_gains(admitted.paused).items()
            if admitted.may_start or number is not None
        ]
        if not rates or max(rates) >= stop_when.gain_per_gpu_hour:
            return True
        self.too_little = (
            f"the search ends: {max(rates):.2g} {self._config.study.metric} is expected of a "
            f"GPU-hour, below budget.stop_when.gain_per_gpu_hour={stop_when.gain_per_gpu_hour:g}"
        )
        return False

    def _hours_to_end(self, number: int | None) -> float:
        """GPU-hours that a paused trial (None: a new one) needs to its end."""
        num_epochs = self._max_epochs if number is None else self._epochs_left(number)
        return num_epochs * self._budget.an_epoch(GPU_TIME, number) / SECONDS_AN_HOUR

    @property
    def _best_so_far(self) -> int | None:
        """Number of the paused trial with the best value, the likeliest last trial, or None."""
        values = {r.number: r.best(self._objective) for r in self._ledger.paused}
        return self._objective.best_key({n: v for n, v in values.items() if v is not None})

    def _favourite(self) -> int | None:
        """The trial with the best expected end that the rest of the budget can train so far.

        While there is budget to spend, a trial that has ended is passed over; the best of these
        is chosen only if no other trial fits. None: there is no trial to choose.
        """
        able: Sequence[int] = self._scheduler.may_be_last()
        self._keep_model_state()
        rooms = self._admission.rooms()
        least = 1 if rooms and self.too_little is None else 0
        to_end = {n: self._epochs_to_reserve(n) for n in able}
        fits = (
            n for n in able if to_end[n] >= least and self._admission.fits(rooms, n, to_end[n])
        )
        return next(fits, next((n for n in able if to_end[n] == 0), None))

    def _epochs_to_reserve(self, number: int) -> int:
        """Epochs that a trial needs to its end; 0 for the running default, reserved already."""
        default = self._ledger.live.get(0)
        is_reserved = number == 0 and default is not None and not default.is_paused
        return 0 if is_reserved else self._epochs_left(number)

    def _epochs_left(self, number: int) -> int:
        """Epochs that a trial needs to its end; 0 once it has ended."""
        record = self._ledger.live.get(number)
        return 0 if record is None else self._max_epochs - record.num_epochs

    def _keep_model_state(self) -> None:
        state = self._scheduler.model_state
        if state is not None:
            self._study.metadata.model_state = state
