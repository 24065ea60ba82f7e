"""Asynchronous successive halving (ASHA), alone and in brackets: which trials stop at a rung.

Source: Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020; the
stopping form. Li et al., "Hyperband: A Novel Bandit-Based Approach to Hyperparameter
Optimization", JMLR 2018.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from hpo import pareto
from hpo.config.schema import DEFAULT_MIN_EPOCHS, SchedulerConfig


def rung_epochs(config: SchedulerConfig, max_epochs: int) -> tuple[int, ...]:
    """min_epochs and its multiples by powers of reduction_factor, below max_epochs."""
    epochs = []
    epoch = config.min_epochs or DEFAULT_MIN_EPOCHS
    while epoch < max_epochs:
        epochs.append(epoch)
        epoch *= config.reduction_factor
    return tuple(epochs)


class AsynchronousHalving:
    """Rungs of best values so far; a trial goes on if it is among the best of its rung.

    The value at a rung is the best one up to it, as the trial's own value will be: one noisy
    epoch ends no trial. Trial 0, the default configuration, is compared with but never stopped:
    it is what the winner has to beat. Nor is a trial that comes to a rung before there are
    reduction_factor to compare. With several objectives the best are whole non-dominated fronts,
    and the most diverse of the front that does not fit.

    Args:
        config: First rung and reduction factor; other schedulers than these have no rungs.
        max_epochs: The length of a trial; there is no rung at the end.
        maximise: Whether a larger value is better.
    """

    def __init__(self, config: SchedulerConfig, max_epochs: int, *, maximise: bool) -> None:
        self._factor = config.reduction_factor
        self._sign = 1.0 if maximise else -1.0
        has_rungs = config.name in {"asha", "hyperband"}
        epochs = rung_epochs(config, max_epochs) if has_rungs else ()
        self._rungs: dict[int, dict[int, tuple[float, ...]]] = {epoch: {} for epoch in epochs}

    @property
    def rung_epochs(self) -> tuple[int, ...]:
        return tuple(self._rungs)

    def goes_on(
        self, number: int, curve: Mapping[int, float], costs: Sequence[float] = ()
    ) -> bool:
        """Whether a trial continues after the epochs of its curve (metric by epoch).

        It must stand at every rung that it has reached and was not judged at: after a crash,
        several epochs may come in one report. `costs` are its other objectives, the smaller the
        better.
        """
        last = max(curve, default=0)
        verdicts = [
            self._stands(number, epoch, curve, costs)
            for epoch, rung in self._rungs.items()
            if epoch <= last and number not in rung
        ]
        return all(verdicts)

    def _stands(
        self, number: int, epoch: int, curve: Mapping[int, float], costs: Sequence[float]
    ) -> bool:
        """Enters the trial into a rung; whether it is among the best there."""
        rung = self._rungs[epoch]
        values = (self._sign * v for e, v in curve.items() if e <= epoch and not math.isnan(v))
        rung[number] = (-max(values, default=-math.inf), *costs)
        if number == 0 or len(rung) < self._factor:
            return True
        num_kept = math.ceil(len(rung) / self._factor)
        if costs:
            return _is_among_best(rung, number, num_kept)
        return rung[number] <= sorted(rung.values())[num_kept - 1]


class Hyperband:
    """Brackets of asynchronous halving whose first rungs lie later and later; the last has none.

    So curves that cross are not all judged at the first rung. A trial's number says which bracket
    it is in; they take turns, each with its share of the trials. Trial 0, the default
    configuration, is compared with in all of them.

    Args:
        config: First rung of the first bracket, and reduction factor.
        max_epochs: The length of a trial.
        maximise: Whether a larger value is better.
    """

    def __init__(self, config: SchedulerConfig, max_epochs: int, *, maximise: bool) -> None:
        starts = (*rung_epochs(config, max_epochs), max_epochs)
        self._brackets = tuple(
            AsynchronousHalving(
                config.model_copy(update={"min_epochs": first}), max_epochs, maximise=maximise
            )
            for first in starts
        )
        self._turns = _turns(len(starts), config.reduction_factor)

    @property
    def brackets(self) -> tuple[tuple[int, ...], ...]:
        """The epochs of each bracket's rungs."""
        return tuple(bracket.rung_epochs for bracket in self._brackets)

    def bracket_of(self, number: int) -> int:
        """The bracket that a trial is in."""
        return self._turns[number % len(self._turns)]

    def goes_on(
        self, number: int, curve: Mapping[int, float], costs: Sequence[float] = ()
    ) -> bool:
        """Whether a trial continues after the epochs of its curve (metric by epoch)."""
        if number:
            return self._brackets[self.bracket_of(number)].goes_on(number, curve, costs)
        verdicts = [bracket.goes_on(0, curve, costs) for bracket in self._brackets]
        return all(verdicts)


def _is_among_best(rung: Mapping[int, tuple[float, ...]], number: int, num_kept: int) -> bool:
    """By several losses; a curve of NaN is the worst, however little its trial costs."""
    numbers = [n for n, losses in rung.items() if math.isfinite(losses[0])]
    best = pareto.best_rows(np.array([rung[n] for n in numbers]), num_kept)
    return number in {numbers[row] for row in best}


def _turns(num_brackets: int, factor: int) -> tuple[int, ...]:
    """The brackets of successive trials, each evenly spread.

    Source: Hyperband, algorithm 1: a bracket of s halvings begins with n factor^s / (s + 1)
    trials, rounded up, of n brackets.
    """
    places = []
    for bracket in range(num_brackets):
        num_halvings = num_brackets - 1 - bracket
        share = math.ceil(num_brackets * factor**num_halvings / (num_halvings + 1))
        places += [((i + 0.5) / share, bracket) for i in range(share)]
    return tuple(bracket for _, bracket in sorted(places))
