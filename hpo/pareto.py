"""Pareto fronts: which rows of losses are on the front, the best rows, and the front's knee.

Losses are arrays (N, objectives); smaller values are better.
"""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def front(losses: FloatArray) -> npt.NDArray[np.bool_]:
    """A mask (N,): True for rows that no other row dominates; equal rows do not dominate."""
    unique, inverse = np.unique(losses, axis=0, return_inverse=True)
    on_front = np.zeros(len(unique), dtype=bool)
    left = np.arange(len(unique))
    while len(left):  # rows are sorted, so no row dominates the first one left
        on_front[left[0]] = True
        left = left[np.any(unique[left] < unique[left[0]], axis=1)]
    chosen: npt.NDArray[np.bool_] = on_front[inverse.reshape(-1)]
    return chosen


def best_rows(losses: FloatArray, num: int) -> npt.NDArray[np.int64]:
    """Indices (num,) of the best rows: the first fronts whole, then a diverse part of the next.

    If there are fewer rows than `num`, all their indices are returned.

    Source: Schmucker et al., "Multi-objective Asynchronous Successive Halving", 2021, section 4:
    within a front an epsilon-net, which keeps the front's ends, beat crowding distances.
    """
    chosen: list[int] = []
    left = np.arange(len(losses))
    while len(chosen) < num and len(left):
        on_front = front(losses[left])
        rows = left[on_front]
        room = num - len(chosen)
        if len(rows) > room:
            rows = rows[_diverse(losses[rows], room)]
        chosen += rows.tolist()
        left = left[~on_front]
    return np.array(chosen, dtype=np.int64)


def knee(losses: FloatArray) -> int:
    """The index of the front's row that lies farthest below the plane through the front's ends.

    Of equally distant rows the first is chosen.

    Source: Das, "On characterizing the 'knee' of the Pareto curve", 1999.
    """
    return int(np.round(_scaled(losses).sum(axis=1), 9).argmin())


def _diverse(losses: FloatArray, num: int) -> list[int]:
    """Indices of `num` rows: the best by the first objective, then each time the farthest row."""
    scaled = _scaled(losses)
    chosen = [int(losses[:, 0].argmin())]
    distances = np.full(len(losses), np.inf)
    while len(chosen) < num:
        distances = np.minimum(distances, ((scaled - scaled[chosen[-1]]) ** 2).sum(axis=1))
        distances[chosen] = -1.0
        chosen.append(int(distances.argmax()))
    return chosen


def _scaled(losses: FloatArray) -> FloatArray:
    """The losses (N, objectives) with each objective scaled to 0..1."""
    low, high = losses.min(axis=0), losses.max(axis=0)
    scaled: FloatArray = (losses - low) / np.where(high > low, high - low, 1.0)
    return scaled
