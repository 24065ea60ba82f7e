"""Agreement of early with late ranks: rank correlations between epochs, and their errors."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from hpo.surrogate.arrays import FloatArray

MIN_RANKED: Final = 4  # the fewest trials whose rank correlation has a standard error


@dataclass(frozen=True)
class Agreement:
    """A rank correlation (-1 to 1): the estimate, and one standard error below and above."""

    estimate: float
    low: float
    high: float


EXACT: Final = Agreement(1.0, 1.0, 1.0)  # an epoch's ranks with themselves


@dataclass(frozen=True)
class _Ranked:
    """One study's rank correlation between two epochs, over the trials that reached the later.

    Attributes:
        correlation: Pearson's correlation of the normal scores of these trials' ranks.
        widening: Standard deviation of all trials' early scores, divided by that of these
            trials' scores; above 1 where only the best were trained on.
        num_trials: The number of these trials.
    """

    correlation: float
    widening: float
    num_trials: int

    @property
    def num_free(self) -> int:
        """Degrees of freedom of the correlation's standard error."""
        return self.num_trials - 3

    def of_all(self, shift: float = 0.0) -> float:
        """Spearman's correlation among all trials, had all reached the later epoch.

        Only trials with good early ranks were trained on. These differ less among themselves
        than all trials do, which biases their correlation towards 0; this corrects for it.

        Args:
            shift: Added to the correlation first, on the scale of Fisher's transformation.

        Source: Thorndike, Personnel Selection, 1949, case 2 of the restriction of range; Pearson,
        1907, for Spearman's correlation of normal scores.
        """
        r, widening = self.correlation, self.widening
        if shift:
            # A perfect correlation is taken to be half the smallest step of ranks below 1.
            most = 1 - 6 / (self.num_trials * (self.num_trials**2 - 1))
            r = math.tanh(math.atanh(min(max(r, -most), most)) + shift)
        of_all = r * widening / math.sqrt(1 + r**2 * (widening**2 - 1))
        return 6 / math.pi * math.asin(of_all / 2)


def agreements(tables: Sequence[FloatArray]) -> list[Agreement | None]:
    """The agreement of each epoch's ranks with those at the last epoch; None: not known.

    The agreements of each epoch with the next are multiplied up to the last epoch. So each step
    uses all trials that reached it, not only the few that reached the last epoch.

    Args:
        tables: For each study (trials, epochs) values; NaN where a trial did not come so far.
    """
    each = [_steps(table) for table in tables if _tells_apart(table[:, -1])]
    found: list[Agreement | None] = [EXACT]
    for i in reversed(range(tables[0].shape[1] - 1)):
        step = _mean([one for steps in each if (one := steps[i]) is not None])
        later = found[-1]
        found.append(None if step is None or later is None else _times(step, later))
    return found[::-1]


def _mean(ranked: Sequence[_Ranked]) -> Agreement | None:
    """The mean agreement over one step of several studies; None: there are none.

    Each study is weighted by its degrees of freedom. The standard error is that of the observed
    correlations; both bounds are corrected for the restriction of range, as the estimate is.

    Source: Fisher, Metron 1 (1921): the inverse hyperbolic tangent of a correlation has a
    standard error of 1 / sqrt(n - 3); benchmarks/first_rung_error_rates.py measures how often a
    bound is on the wrong side of the truth.
    """
    if not ranked:
        return None
    weights = [one.num_free for one in ranked]
    error = 1 / math.sqrt(sum(weights))

    def shifted(shift: float) -> float:
        return float(np.average([one.of_all(shift) for one in ranked], weights=weights))

    return Agreement(shifted(0.0), shifted(-error), shifted(error))


def _times(one: Agreement, other: Agreement) -> Agreement:
    """The agreement over two steps: the estimates' product, and its least and largest value."""
    ends = [a * b for a in (one.low, one.high) for b in (other.low, other.high)]
    return Agreement(one.estimate * other.estimate, min(ends), max(ends))


def _tells_apart(values: FloatArray) -> bool:
    """Whether the values that are not NaN differ at all."""
    known = values[~np.isnan(values)]
    return bool(len(known)) and bool(known.min() < known.max())


def _steps(table: FloatArray) -> list[_Ranked | None]:
    """A study's correlation of each epoch with the next; None where too few trials reached it.

    The trials that reached an epoch differ less there than all trials would have; the steps
    before tell by how much.
    """
    steps: list[_Ranked | None] = []
    widening = 1.0  # sd of all trials' scores, divided by that of trials at the epoch
    for early, late in itertools.pairwise(table.T):
        came = ~np.isnan(early)
        ranked = _ranked(early[came], late[came], widening)
        steps.append(ranked)
        if ranked is not None:
            widening = math.sqrt(1 + ranked.correlation**2 * (ranked.widening**2 - 1))
    return steps


def _ranked(early: FloatArray, late: FloatArray, widening: float) -> _Ranked | None:
    came = ~np.isnan(late)
    scores, late_scores = _normal_scores(early), _normal_scores(late[came])
    chosen = scores[came]
    if len(chosen) < MIN_RANKED:
        return None
    if not chosen.std() or not late_scores.std():  # all values are equal
        return _Ranked(0.0, 1.0, len(chosen))
    correlation = float(np.corrcoef(chosen, late_scores)[0, 1])
    return _Ranked(correlation, widening * float(scores.std() / chosen.std()), len(chosen))


def _normal_scores(values: FloatArray) -> FloatArray:
    """(n,) quantiles of the standard normal distribution at the ranks of values (n,)."""
    from scipy.special import ndtri  # SciPy takes most of a second, and few searches need it
    from scipy.stats import rankdata

    scores: FloatArray = ndtri((rankdata(values) - 0.5) / max(1, len(values)))
    return scores
