"""The rungs of scheduler freeze_thaw: epochs at which trials pause and compete to be resumed."""

import math
from typing import Final

# The first rung of freeze_thaw, as a share of max_epochs. Source: shared measurements.
FIRST_RUNG: Final = 8 / 52
RUNG_FACTOR: Final = 1.87  # approximate ratio of one rung to the rung before
NUM_LOWER: Final = 2  # candidates for the first rung below the default first rung


def first_rung(max_epochs: int, first: int | None = None) -> int:
    """The epoch of the first rung: `first`, or FIRST_RUNG * max_epochs; within 1..max_epochs."""
    return min(max(1, first or round(FIRST_RUNG * max_epochs)), max_epochs)


def rungs(max_epochs: int, first: int | None = None) -> tuple[int, ...]:
    """The epochs of all rungs, ascending, about a geometric sequence; the last is `max_epochs`."""
    first = first_rung(max_epochs, first)
    if first == max_epochs:
        return (max_epochs,)
    num_steps = max(1, round(math.log(max_epochs / first) / math.log(RUNG_FACTOR)))
    ratio = (max_epochs / first) ** (1 / num_steps)
    return tuple(sorted({round(first * ratio**i) for i in range(num_steps)} | {max_epochs}))


def rungs_and_below(max_epochs: int, first: int | None = None) -> tuple[int, ...]:
    """The epochs of all rungs and of the candidates for a lower first rung, ascending."""
    above = rungs(max_epochs, first)
    below = {max(1, round(above[0] / RUNG_FACTOR**i)) for i in range(1, NUM_LOWER + 1)}
    return tuple(sorted(below | set(above)))


def half_way(first: int) -> int:
    """The epoch half way to the first rung; 0 if the first rung lies below 4 epochs."""
    return first // 2 if first >= 4 else 0


def next_rung(epoch: int, of: tuple[int, ...]) -> int:
    """The first of the ascending rungs `of` after `epoch`; the last rung if there is none."""
    return next((rung for rung in of if rung > epoch), of[-1])
