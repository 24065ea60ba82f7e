"""The first level: the epoch at which trials are first compared, chosen by what ranks tell there.

Where trials rank early as they do late, a few epochs tell good from bad; where they do not, what
is decided early is decided by chance.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hpo.config.rungs import first_rung, rungs_and_below
from hpo.config.schema import DEFAULT_MIN_EPOCHS, SchedulerConfig, SearchConfig
from sgformer.config import FrozenConfig

# Source: docs/performance.md, of these three.
MIN_TRIALS: Final = 4  # with a late epoch; the fewest whose correlation has a standard error
AGREE: Final = 0.85  # ranks of an earlier epoch than the default, at least, to be trusted
DISAGREE: Final = 0.5  # ranks of the default, at most, not to be

Curve = Mapping[int, float]
FloatArray = npt.NDArray[np.floating[Any]]


class FirstLevel(FrozenConfig):
    """Where trials from number `from_trial` on are first compared, as the study keeps it.

    `agreement` is what Spearman's rank correlation is estimated to be, over all trials, between
    the epochs that were considered and the epoch `late`, to which `num_trials` have come.
    """

    epoch: int
    late: int
    num_trials: int
    agreement: dict[int, float]
    from_trial: int = 0
    is_of_earlier_studies: bool = False


def read_first_levels(values: Sequence[Mapping[str, Any]]) -> tuple[FirstLevel, ...]:
    """As the study keeps them, the latest last."""
    return tuple(FirstLevel.model_validate(one) for one in values)


def with_first_level(
    scheduler: SchedulerConfig, values: Sequence[Mapping[str, Any]]
) -> SchedulerConfig:
    """With `min_epochs` as it was chosen, unless it is set."""
    if scheduler.min_epochs is not None or not values:
        return scheduler
    return scheduler.model_copy(update={"min_epochs": read_first_levels(values)[-1].epoch})


def is_due(chosen: Sequence[FirstLevel], curves: Sequence[Curve], max_epochs: int) -> bool:
    """Whether enough trials have come far enough: at first MIN_TRIALS, then twice as many."""
    num_own = sum(not one.is_of_earlier_studies for one in chosen)
    return _num_late(curves, max_epochs) >= MIN_TRIALS << num_own


def _num_late(curves: Sequence[Curve], max_epochs: int) -> int:
    """How many trials have come to half of their epochs."""
    return sum(
        any(2 * epoch >= max_epochs and not math.isnan(v) for epoch, v in curve.items())
        for curve in curves
    )


def choose_first_level(
    studies: Sequence[Sequence[Curve]],
    max_epochs: int,
    default: int | None = None,
    from_trial: int = 0,
) -> FirstLevel | None:
    """The smallest fidelity that is useful, by the curves so far; None: they are too few.

    The default holds unless ranks there say little of those late in training: then it is the
    first later level whose ranks say more, at most half of the training. Or an earlier epoch's
    ranks say nearly all: then it is the earliest such. Both must be so even if the correlation
    is off by its standard error, which is large with few trials.

    Args:
        studies: Each one's curves (metric by epoch), ranked among themselves.
        max_epochs: The length of a trial.
        default: The first level without any data; None: a share of max_epochs.
        from_trial: The first trial that it is to hold for.
    """
    grid = rungs_and_below(max_epochs, default)
    tables = [_table(curves, grid) for curves in studies]
    counts = {e: sum(len(_known(t, i)) for t in tables) for i, e in enumerate(grid)}
    late = max((e for e in grid if counts[e] >= MIN_TRIALS and 2 * e >= max_epochs), default=0)
    agreement = _agreement(tables, grid[: grid.index(late) + 1]) if late else {}
    early = {e: round(agreement[e], 4) for e in agreement if 2 * e < max_epochs}
    if not early:
        return None
    half = next((e for e in grid[:-1] if 2 * e >= max_epochs), grid[-2])
    epoch = _choose(early, counts[late], first_rung(max_epochs, default), half)
    return FirstLevel(
        epoch=epoch,
        late=late,
        num_trials=counts[late],
        agreement=early,
        from_trial=from_trial,
    )


def _choose(agreement: Mapping[int, float], num_trials: int, default: int, half: int) -> int:
    if _shifted(agreement.get(default, 1.0), 1.0, num_trials) < DISAGREE:
        later = (e for e in agreement if e > default and agreement[e] >= DISAGREE)
        return next(later, half)
    agreeing = (e for e in agreement if _shifted(agreement[e], -1.0, num_trials) >= AGREE)
    return min(default, next(agreeing, default))


def _shifted(correlation: float, num_errors: float, num_trials: int) -> float:
    """By so many standard errors.

    Source: Fisher, Metron 1 (1921): the inverse hyperbolic tangent has one of 1 / sqrt(n - 3).
    """
    straight = math.atanh(min(max(correlation, -0.999), 0.999))
    return math.tanh(straight + num_errors / math.sqrt(num_trials - 3))


def _table(curves: Sequence[Curve], grid: Sequence[int]) -> FloatArray:
    """(trials, epochs of the grid) values; NaN where a trial has not come.

    One that stopped itself has the value of its end from there on.
    """
    ends = [curve.get(grid[-1], math.nan) for curve in curves]
    rows = [[c.get(e, end) for e in grid] for c, end in zip(curves, ends, strict=True)]
    return np.array(rows, dtype=float).reshape(len(rows), len(grid))


def _known(table: FloatArray, column: int) -> FloatArray:
    return table[~np.isnan(table[:, column])]


def _agreement(tables: Sequence[FloatArray], grid: Sequence[int]) -> dict[int, float]:
    """Of each epoch's ranks with those of the last: from one to the next, multiplied.

    So each step has all the trials that came so far, not only the few that came to the last.
    """
    agreement = {grid[-1]: 1.0}
    for i in range(len(grid) - 2, -1, -1):
        agreement[grid[i]] = agreement[grid[i + 1]] * _step(tables, i)
    return dict(sorted(agreement.items()))


def _step(tables: Sequence[FloatArray], column: int) -> float:
    """From one epoch to the next: the mean over the studies, by the number of their trials."""
    pairs = [_known(table, column)[:, [column, column + 1]] for table in tables]
    weights = [len(_known(pair, 1)) for pair in pairs]
    correlations = [rank_correlation(*pair.T) for pair in pairs]
    return float(np.average(correlations, weights=weights)) if any(weights) else 0.0


def rank_correlation(early: FloatArray, late: FloatArray) -> float:
    """Spearman's, estimated for all trials though the late values of some are not known (NaN).

    Those that were trained on were chosen by their early ranks, and the best differ less among
    themselves than all do: their ranks agree less than those of all would.

    Source: Thorndike, Personnel Selection, 1949, case 2 of the restriction of range.
    """
    is_known = ~np.isnan(late)
    ranks, late_ranks = _ranks(early), _ranks(late[is_known])
    chosen = ranks[is_known]
    if not len(chosen) or not late_ranks.std():
        return 1.0  # there is nothing to tell apart
    if not chosen.std():
        return 0.0
    if not is_known.all():  # in the same order they would have the same ranks, gaps and all
        late_ranks = np.interp(late_ranks, np.arange(1, len(chosen) + 1), np.sort(chosen))
    correlation = float(np.corrcoef(chosen, late_ranks)[0, 1])
    widening = float(ranks.std() / chosen.std())
    return correlation * widening / math.sqrt(1 + correlation**2 * (widening**2 - 1))


def _ranks(values: FloatArray) -> FloatArray:
    """From 1 on; of equal values the mean."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: FloatArray = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return ranks


def first_level_text(
    config: SearchConfig, chosen: Sequence[FirstLevel], curves: Sequence[Curve] = ()
) -> str | None:
    """At which epoch trials are first compared, and why; None: they never are."""
    scheduler, max_epochs = config.scheduler, config.train.max_epochs
    if scheduler.name == "none":
        return None
    if scheduler.min_epochs is not None:
        return f"epoch {scheduler.min_epochs} of {max_epochs} (scheduler.min_epochs)"
    default = None if scheduler.name == "freeze_thaw" else DEFAULT_MIN_EPOCHS
    epoch = first_rung(max_epochs, default)
    if chosen:
        return _reasons(chosen[-1], epoch, max_epochs)
    text = f"epoch {epoch} of {max_epochs} (default"
    if scheduler.name != "freeze_thaw":
        return f"{text})"
    num = min(_num_late(curves, max_epochs), MIN_TRIALS)
    half = math.ceil(max_epochs / 2)
    return f"{text}: {num} of {MIN_TRIALS} trials needed have come to epoch {half})"


def _reasons(chosen: FirstLevel, default: int, max_epochs: int) -> str:
    epoch, late, agreement = chosen.epoch, chosen.late, chosen.agreement
    whose = " of earlier studies" if chosen.is_of_earlier_studies else ""
    text = f"epoch {epoch} of {max_epochs}: ranks "
    if epoch in agreement:
        text += f"there and at epoch {late} (Spearman {agreement[epoch]:.2f}, "
    else:
        text += f"before disagree with those at epoch {late} (Spearman "
    if epoch > default:
        text += f"{agreement[default]:.2f} at epoch {default}, "
    return f"{text}{chosen.num_trials} trials{whose})"
