"""Hyperband: brackets of asynchronous halving whose first rungs lie later and later.

Source: Li et al., "Hyperband: A Novel Bandit-Based Approach to Hyperparameter Optimization", JMLR
2018.
"""

import math
from collections.abc import Mapping, Sequence

from hpo.config.schema import SchedulerConfig
from hpo.schedulers.asha import AsynchronousHalving, rung_epochs


class Hyperband:
    """Brackets of asynchronous halving whose first rungs lie later and later; the last has none.

    So trials whose curves cross are not all judged at the same early rung. A trial's number
    determines its bracket: the brackets take turns, each with its share of the trials. Trial 0,
    the default configuration, enters the rungs of all brackets but is never stopped.

    Args:
        config: Has the first bracket's first rung and the reduction factor.
        max_epochs: The length of a training, in epochs.
        maximise: Whether a larger value is better.
    """

    point = "rung"

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
        """The epochs of each bracket's rungs, ascending."""
        return tuple(bracket.rung_epochs for bracket in self._brackets)

    def bracket_of(self, number: int) -> int:
        """The index in `brackets` of a trial's bracket."""
        return self._turns[number % len(self._turns)]

    def standing(self, number: int, epoch: int) -> tuple[int, int] | None:
        """A trial's rank at a rung of its bracket, and the number of trials there."""
        return self._brackets[self.bracket_of(number)].standing(number, epoch)

    def stops_at(
        self, number: int, curve: Mapping[int, float], costs: Sequence[float] = ()
    ) -> int | None:
        """The first rung of its bracket where a trial is not among the best; None: it goes on.

        Args:
            number: The trial's number.
            curve: The trial's objective by epoch.
            costs: The trial's other objectives; smaller is better.
        """
        if number:
            return self._brackets[self.bracket_of(number)].stops_at(number, curve, costs)
        for bracket in self._brackets:
            bracket.stops_at(0, curve, costs)
        return None


def _turns(num_brackets: int, factor: int) -> tuple[int, ...]:
    """The bracket of each of a round of trials; a bracket's trials are spread evenly over it.

    Source: Hyperband, algorithm 1: of n brackets, one with s halvings begins with
    n factor^s / (s + 1) trials, rounded up.
    """
    places = []
    for bracket in range(num_brackets):
        num_halvings = num_brackets - 1 - bracket
        share = math.ceil(num_brackets * factor**num_halvings / (num_halvings + 1))
        places += [((i + 0.5) / share, bracket) for i in range(share)]
    return tuple(bracket for _, bracket in sorted(places))
