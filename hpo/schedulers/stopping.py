"""The scheduler that stops trials for good: a rule decides by a trial's curve."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from hpo.config.search_space import Params
from hpo.schedulers.base import Choice, Decision, Scheduler, Start, Wait


class StoppingRule(Protocol):
    """Compares trials at equal epochs, and enters each trial there once.

    Attributes:
        point: The rule's word for an epoch where trials are compared: 'rung' or 'epoch'.
    """

    point: str

    def standing(self, number: int, epoch: int) -> tuple[int, int] | None:
        """A trial's rank among those compared at an epoch, and their number; None: no ranks."""

    def stops_at(
        self, number: int, curve: Mapping[int, float], costs: Sequence[float] = ()
    ) -> int | None:
        """The epoch at which a trial falls behind others; None: the trial goes on.

        `curve` is the trial's objective by epoch; `costs` are its other objectives, smaller is
        better.
        """


class NoStopping:
    """Stops no trial."""

    point = "rung"

    def standing(self, number: int, epoch: int) -> tuple[int, int] | None:
        return None

    def stops_at(
        self, number: int, curve: Mapping[int, float], costs: Sequence[float] = ()
    ) -> int | None:
        return None


class StoppingScheduler(Scheduler):
    """Stops trials by a rule; a free slot always starts a new trial.

    A trial that stopped itself is entered at all later epochs too, with its final value.

    Args:
        rule: Says at which epoch a trial stops.
        max_epochs: The length of a training, in epochs.
        first_rung: The epoch at which trials are first compared.
        costs_of: Returns a configuration's objectives that are costs; smaller is better.
    """

    def __init__(
        self,
        rule: StoppingRule,
        max_epochs: int,
        first_rung: int,
        costs_of: Callable[[Params], tuple[float, ...]],
    ) -> None:
        self._rule, self._max_epochs, self._first_rung = rule, max_epochs, first_rung
        self._costs_of = costs_of
        self._point = rule.point
        self._curves: dict[int, dict[int, float]] = {}  # of trials that have not ended
        self._stops: dict[int, int] = {}
        self._costs: dict[int, tuple[float, ...]] = {}

    def started(self, number: int, params: Params) -> None:
        self._curves[number], self._costs[number] = {}, self._costs_of(params)

    def reported(self, number: int, values: Mapping[int, float]) -> None:
        self._curves[number] |= values

    def interrupted(self, number: int) -> bool:
        """Enters the trial at all epochs but its last, which may be unjudged; returns True."""
        curve = dict(self._curves[number])
        curve.pop(max(curve, default=0), None)
        self._rule.stops_at(number, curve, self._costs[number])
        return True

    def completed(self, number: int, value: float) -> None:
        last = max(self._curves[number], default=0)
        later = dict.fromkeys(range(last + 1, self._max_epochs + 1), value)
        self.reported(number, later)
        self._end(number)

    def pruned(self, number: int, *, diverged: bool = False) -> None:
        self._end(number)

    def failed(self, number: int) -> None:
        self._end(number)

    def on_epoch(self, number: int) -> Decision:
        stop = self._rule.stops_at(number, self._curves[number], self._costs[number])
        if stop is None:
            return Decision.CONTINUE
        self._stops[number] = stop
        return Decision.STOP

    def place_of_stop(self, number: int) -> str:
        epoch = self._stops.get(number, max(self._curves[number], default=0))
        return f"{self._point} {epoch}"

    def standing(self, number: int) -> tuple[int, int] | None:
        epoch = self._stops.get(number)
        return None if epoch is None else self._rule.standing(number, epoch)

    def next(self, paused: Sequence[int], *, may_start: bool) -> Choice:
        return Start() if may_start else Wait()

    @property
    def first_rung(self) -> int:
        return self._first_rung

    def next_stop(self, number: int, epoch: int) -> int:
        return self._max_epochs if number == 0 else max(epoch + 1, self._first_rung)

    def _end(self, number: int) -> None:
        """Enters an ended trial's whole curve, so that later trials are compared with it."""
        self._rule.stops_at(number, self._curves.pop(number), self._costs.pop(number))
        self._stops.pop(number, None)
