"""The rungs: epochs at which trials compete for going on, of scheduler freeze_thaw."""

import math
from typing import Final

# The first rung of freeze_thaw, as a share of max_epochs. Source: shared measurements.
FIRST_RUNG: Final = 8 / 52
RUNG_FACTOR: Final = 1.87  # from each rung to the next, about
NUM_LOWER: Final = 2  # epochs below the default first rung that may take its place


def first_rung(max_epochs: int, first: int | None = None) -> int:
    """The first rung: `first`, or the default's share of `max_epochs`, in 1..max_epochs."""
    return min(max(1, first or round(FIRST_RUNG * max_epochs)), max_epochs)


def rungs(max_epochs: int, first: int | None = None) -> tuple[int, ...]:
    """The epochs at which trials compete, in a geometric sequence; the last is `max_epochs`."""
    first = first_rung(max_epochs, first)
    if first == max_epochs:
        return (max_epochs,)
    num_steps = max(1, round(math.log(max_epochs / first) / math.log(RUNG_FACTOR)))
    ratio = (max_epochs / first) ** (1 / num_steps)
    return tuple(sorted({round(first * ratio**i) for i in range(num_steps)} | {max_epochs}))


def rungs_and_below(max_epochs: int, first: int | None = None) -> tuple[int, ...]:
    """The rungs, and below them the epochs that may become the first rung."""
    above = rungs(max_epochs, first)
    below = {max(1, round(above[0] / RUNG_FACTOR**i)) for i in range(1, NUM_LOWER + 1)}
    return tuple(sorted(below | set(above)))


def half_way(first: int) -> int:
    """The epoch half way to the first rung; 0 where so few epochs tell nothing."""
    return first // 2 if first >= 4 else 0


def next_rung(epoch: int, of: tuple[int, ...]) -> int:
    """The rung that a trial comes to next after an epoch; the last one at the end."""
    return next((rung for rung in of if rung > epoch), of[-1])
