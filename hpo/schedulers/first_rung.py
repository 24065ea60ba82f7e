"""The first rung: the epoch at which trials first compete, chosen by rank correlations.

Where early ranks of trials agree with late ones, a few epochs tell good trials from bad ones;
where they do not, an early decision is made by chance.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from hpo.config.rungs import first_rung, rungs_and_below
from hpo.config.schema import DEFAULT_MIN_EPOCHS, SchedulerConfig, SearchConfig
from hpo.schedulers.rank_agreement import EXACT, MIN_RANKED, Agreement, agreements
from hpo.surrogate.arrays import FloatArray
from sgformer.validation import FrozenConfig

# A first rung is chosen only with this many late trials, the fewest whose rank correlation has a
# standard error. Source: docs/performance.md.
MIN_TRIALS: Final = 4
# Early ranks are compared with those at the latest epoch that this many trials have reached, or
# else MIN_TRIALS. Source: benchmarks/first_rung_error_rates.py.
NUM_TELLING: Final = 8
# The first rung is lowered to an epoch whose rank correlation with late ones is at least AGREE,
# and raised if that of the default rung is below DISAGREE. Source: docs/performance.md.
AGREE: Final = 0.85
DISAGREE: Final = 0.5

Curve = Mapping[int, float]


class FirstRung(FrozenConfig):
    """The first rung of trials from number `from_trial` on, as the study keeps it.

    Attributes:
        epoch: The epoch of the rung.
        late: The epoch that earlier epochs were compared with.
        num_trials: How many trials have reached `late`.
        agreement: Spearman's rank correlation (-1 to 1) of each considered epoch with `late`,
            estimated for all trials, those stopped before `late` included.
        from_trial: Number of the first trial that the rung holds for.
        is_of_earlier_studies: Whether the rung was chosen by curves of `study.warm_start`.
    """

    epoch: int
    late: int
    num_trials: int
    agreement: dict[int, float]
    from_trial: int = 0
    is_of_earlier_studies: bool = False


def read_first_rungs(values: Sequence[Mapping[str, Any]]) -> tuple[FirstRung, ...]:
    """The first rungs that the study keeps as plain values, the latest last."""
    return tuple(FirstRung.model_validate(one) for one in values)


def with_first_rung(
    scheduler: SchedulerConfig, values: Sequence[Mapping[str, Any]]
) -> SchedulerConfig:
    """The scheduler config with the chosen first rung as `min_epochs`, unless that is set."""
    if scheduler.min_epochs is not None or not values:
        return scheduler
    return scheduler.model_copy(update={"min_epochs": read_first_rungs(values)[-1].epoch})


def is_due(chosen: Sequence[FirstRung], curves: Sequence[Curve], max_epochs: int) -> bool:
    """Whether to choose a first rung: at MIN_TRIALS late trials, then at each doubling."""
    num_own = sum(not one.is_of_earlier_studies for one in chosen)
    return _num_late(curves, max_epochs) >= MIN_TRIALS << num_own


def _num_late(curves: Sequence[Curve], max_epochs: int) -> int:
    """How many trials are late: they have come to half of `max_epochs` or further."""
    return sum(
        any(2 * epoch >= max_epochs and not math.isnan(v) for epoch, v in curve.items())
        for curve in curves
    )


def choose_first_rung(
    studies: Sequence[Sequence[Curve]],
    max_epochs: int,
    default: int | None = None,
    from_trial: int = 0,
) -> FirstRung | None:
    """The earliest useful first rung, by the curves so far; None: they are too few to tell.

    If the default's ranks agree with late ones by less than DISAGREE, the rung is the first later
    epoch whose ranks agree by more, at most half of the training. If an earlier epoch's ranks
    agree by at least AGREE, the rung is the earliest such epoch. Otherwise it is the default. The
    first two must hold even if the agreement is off by a standard error, which is large with few
    trials.

    Args:
        studies: Each study's curves (metric by epoch); trials are ranked within their study.
        max_epochs: The length of a training, in epochs.
        default: The first rung without any data, an epoch; None: a share of max_epochs.
        from_trial: Number of the first trial that the choice is to hold for.
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
    return FirstRung(
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
    """The latest rung in the second half that NUM_TELLING trials reached, or else MIN_TRIALS.

    Each study counts three trials less than it has: these are its degrees of freedom.
    """
    for least in (NUM_TELLING, MIN_TRIALS):
        for column in reversed(range(len(grid))):
            ranked = [num for table in tables if (num := _num_ranked(table, column))]
            if 2 * grid[column] >= max_epochs and sum(num - 3 for num in ranked) >= least - 3:
                return grid[column]
    return None


def _num_ranked(table: FloatArray, column: int) -> int:
    """How many of a study's trials reached an epoch; 0 if fewer than MIN_RANKED did."""
    num = int((~np.isnan(table[:, column])).sum())
    return num if num >= MIN_RANKED else 0


def _table(curves: Sequence[Curve], grid: Sequence[int]) -> FloatArray:
    """(trials, epochs of the grid) values; NaN where a trial has not reached an epoch.

    A trial that stopped itself has its final value at the epochs after that.
    """
    ends = [curve.get(grid[-1], math.nan) for curve in curves]
    rows = [[c.get(e, end) for e in grid] for c, end in zip(curves, ends, strict=True)]
    return np.array(rows, dtype=float).reshape(len(rows), len(grid))


def first_rung_text(
    config: SearchConfig, chosen: Sequence[FirstRung], curves: Sequence[Curve] = ()
) -> str | None:
    """The epoch of the first rung and why it was chosen, in words; None: there are no rungs."""
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


def _reasons(chosen: FirstRung, default: int, max_epochs: int) -> str:
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
