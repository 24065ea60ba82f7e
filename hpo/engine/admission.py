"""Admission: which trials the budget lets start, resume, or train another epoch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from hpo.engine.budget import Budget, Limit
from hpo.engine.ledger import TrialLedger, TrialRecord
from hpo.schedulers.base import Scheduler

# Trials that start before the scheduler knows any curve may use at most this share of what is
# left of a limit. Source: docs/performance.md.
SHARE_OF_BLIND: Final = 0.5
# A new trial must leave this share of a full training in the budget, so that the best paused
# trials can go on at the end of the search. Source: docs/performance.md.
SHARE_TO_COMPARE: Final = 0.3


class Room(NamedTuple):
    """The room in a limit: what is left, and how much of this the running trials will use.

    Attributes:
        limit: The limit.
        left: What is left, in the limit's unit: epochs or seconds.
        running: What the running trials will use until they may stop, in the same unit.
    """

    limit: Limit
    left: float
    running: float


@dataclass(frozen=True)
class Admitted:
    """The trials that a free slot may run.

    Attributes:
        paused: Numbers of the paused trials that may be resumed.
        may_start: Whether a new trial may start.
        may_start_waiting: Whether an enqueued trial may start. It needs less room than others:
            a user asked for it, so no epochs are kept for the best paused trials.
    """

    paused: tuple[int, ...]
    may_start: bool
    may_start_waiting: bool


class Admission:
    """Tells what the budget lets run; it changes neither budget, ledger nor scheduler.

    The default configuration (trial 0) always has room for its whole training. So has the best
    trial so far, where the search ends by training one trial to its end.

    Args:
        budget: Knows what is left of each limit.
        ledger: Knows the trials.
        scheduler: Knows how far a trial trains before it may stop.
        max_epochs: The length of a training, in epochs.
        num_trials: `study.num_trials`.
        is_exhausted: Says whether every configuration of the space has been tried.
    """

    def __init__(
        self,
        budget: Budget,
        ledger: TrialLedger,
        scheduler: Scheduler,
        max_epochs: int,
        num_trials: int,
        is_exhausted: Callable[[], bool] = lambda: False,
    ) -> None:
        self._budget, self._ledger, self._scheduler = budget, ledger, scheduler
        self._max_epochs, self._num_trials = max_epochs, num_trials
        self._is_exhausted = is_exhausted

    @property
    def num_to_start(self) -> int:
        """The most new trials that may yet start; 0 once budget or space is used up."""
        is_out = self.is_spent or self._is_exhausted()
        is_out = is_out or (self._ledger.is_idle and not self._lets_start)
        return 0 if is_out else max(0, self._num_trials - self._ledger.num_started)

    def lets_go_on(self, number: int) -> bool:
        """Whether a running trial may train another epoch.

        The default configuration (trial 0) may until a limit is used up. Another trial may only
        if one more epoch of every running trial leaves enough for the default's training.
        """
        if any(self._budget.left(limit) <= 0 for limit in self._budget.limits):
            return False
        return number == 0 or all(spare >= 0 for spare in self._to_spare())

    @property
    def is_spent(self) -> bool:
        """Whether one more epoch of every running trial leaves nothing for a new trial."""
        return any(spare <= 0 for spare in self._to_spare())

    def admitted(self, *, kept_to_end: int, best: int | None) -> Admitted:
        """The trials that a free slot may run beside the running ones.

        Args:
            kept_to_end: Epochs that are reserved to train the best trial so far to its end.
            best: Number of that trial; None: there is none, and an average epoch is reserved.
        """
        rooms, scheduler = self.rooms(kept_to_end, best), self._scheduler
        first, paused = scheduler.first_rung, self._ledger.paused
        has_room = self.num_to_start > 0 and self.fits(rooms, None, first)
        kept = round(SHARE_TO_COMPARE * self._max_epochs) if paused else 0
        may_start = has_room and not self._is_blind(rooms) and self.fits(rooms, None, first + kept)
        able = (r.number for r in paused if self.fits(rooms, r.number, self._epochs_ahead(r)))
        return Admitted(tuple(able), may_start, may_start_waiting=has_room)

    def rooms(self, kept_to_end: int = 0, best: int | None = None) -> tuple[Room, ...]:
        """The room in each limit once `kept_to_end` epochs of trial `best` are reserved.

        A running trial that the scheduler may yet pause at its last epoch reserves nothing.
        """
        budget, may_pause = self._budget, self._scheduler.may_pause
        running = [r for r in self._ledger.running if not (r.is_undecided and may_pause)]
        return tuple(
            Room(
                limit,
                budget.left(limit) - kept_to_end * budget.an_epoch(limit, best),
                limit.together(
                    [self._epochs_ahead(r) * budget.an_epoch(limit, r.number) for r in running]
                ),
            )
            for limit in budget.limits
        )

    def fits(self, rooms: Sequence[Room], number: int | None, num_epochs: int) -> bool:
        """Whether a trial (None: a new one) can train `num_epochs` beside the running ones."""
        return all(
            room.left
            >= room.limit.together(
                [room.running, num_epochs * self._budget.an_epoch(room.limit, number)]
            )
            for room in rooms
        )

    @property
    def _lets_start(self) -> bool:
        """Whether the budget lets the running trials and a new one reach the first rung."""
        return all(spare >= 0 for spare in self._to_spare(self._scheduler.first_rung))

    def _to_spare(self, rung: int = 0) -> list[float]:
        """Slack of each limit after reserving the default's remaining epochs.

        One epoch of every running trial is reserved, too; with `rung`, the epochs that the
        running trials and one new trial need to reach epoch `rung`. The slack is in the limit's
        unit, and negative where too little is left.
        """
        ahead: dict[int | None, int] = {
            record.number: max(1, rung - record.num_epochs) for record in self._ledger.in_slots
        }
        ahead[None] = rung
        default = self._ledger.live.get(0)
        if default is not None:
            ahead[0] = self._max_epochs - default.num_epochs
        budget = self._budget
        return [
            budget.left(limit)
            - limit.together([num * budget.an_epoch(limit, n) for n, num in ahead.items()])
            for limit in budget.limits
        ]

    def _is_blind(self, rooms: Sequence[Room]) -> bool:
        """Whether a new trial should wait for the first trials' curves; see SHARE_OF_BLIND."""
        if not self._scheduler.is_blind:
            return False
        num_epochs = (len(self._ledger.running) + 1) * self._scheduler.first_rung
        return any(
            num_epochs * self._budget.an_epoch(room.limit) > SHARE_OF_BLIND * room.left
            for room in rooms
            if room.limit.adds_up
        )

    def _epochs_ahead(self, record: TrialRecord) -> int:
        """Epochs that a trial trains until it may next stop or pause."""
        epoch = record.num_epochs
        return self._scheduler.next_stop(record.number, epoch) - epoch
