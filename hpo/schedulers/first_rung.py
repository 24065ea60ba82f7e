"""The first level: the epoch at which trials are first compared, chosen by what ranks tell there.

Where trials rank early as they do late, a few epochs tell good from bad; where they do not, what
is decided early is decided by chance.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from hpo.config.rungs import first_rung, rungs_and_below
from hpo.config.schema import DEFAULT_MIN_EPOCHS, SchedulerConfig, SearchConfig
from hpo.schedulers.rank_agreement import (
    EXACT,
    MIN_RANKED,
    Agreement,
    agreements,
)
from hpo.surrogate.arrays import FloatArray
from sgformer.config import FrozenConfig

# Source: docs/performance.md, of these three.
MIN_TRIALS: Final = 4  # with a late epoch; the fewest whose correlation has a standard error
NUM_TELLING: Final = (
    8  # with which an earlier late epoch tells more than a later one of MIN_TRIALS
)
AGREE: Final = 0.85  # ranks of an earlier epoch than the default, at least, to be trusted
DISAGREE: Final = 0.5  # ranks of the default, at most, not to be

Curve = Mapping[int, float]


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
    late = _latest(tables, grid, max_epochs)
    if late is None:
        return None
    column = grid.index(late)
    found = agreements([table[:, : column + 1] for table in tables])
    early = {
        epoch: agreement
        for epoch, agreement in zip(grid, found, strict=False)
        if 2 * epoch < max_epochs and agreement is not None
    }
    if not early:
        return None
    half = next((e for e in grid[:-1] if 2 * e >= max_epochs), grid[-2])
    return FirstLevel(
        epoch=_choose(early, first_rung(max_epochs, default), half),
        late=late,
        num_trials=sum(_num_ranked(table, column) for table in tables),
        agreement={e: round(one.estimate, 4) for e, one in early.items()},
        from_trial=from_trial,
    )


def _choose(early: Mapping[int, Agreement], default: int, half: int) -> int:
    if early.get(default, EXACT).high < DISAGREE:
        later = (e for e, one in early.items() if e > default and one.estimate >= DISAGREE)
        return next(later, half)
    agreeing = (e for e, one in early.items() if one.low >= AGREE)
    return min(default, next(agreeing, default))


def _latest(tables: Sequence[FloatArray], grid: Sequence[int], max_epochs: int) -> int | None:
    """The latest rung of the second half that NUM_TELLING trials came to, or MIN_TRIALS."""
    for least in (NUM_TELLING, MIN_TRIALS):
        for column in reversed(range(len(grid))):
            ranked = [num for table in tables if (num := _num_ranked(table, column))]
            if 2 * grid[column] >= max_epochs and sum(num - 3 for num in ranked) >= least - 3:
                return grid[column]
    return None


def _num_ranked(table: FloatArray, column: int) -> int:
    """Trials of a study that came to an epoch; 0 where they are too few to tell."""
    num = int((~np.isnan(table[:, column])).sum())
    return num if num >= MIN_RANKED else 0


def _table(curves: Sequence[Curve], grid: Sequence[int]) -> FloatArray:
    """(trials, epochs of the grid) values; NaN where a trial has not come.

    One that stopped itself has the value of its end from there on.
    """
    ends = [curve.get(grid[-1], math.nan) for curve in curves]
    rows = [[c.get(e, end) for e in grid] for c, end in zip(curves, ends, strict=True)]
    return np.array(rows, dtype=float).reshape(len(rows), len(grid))


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
