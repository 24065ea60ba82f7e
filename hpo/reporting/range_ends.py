"""The ends of ranges: whether the best values lie there, and where an end could lie instead."""

import math
from collections.abc import Sequence
from statistics import median
from typing import Final

from hpo.config.search_space import FloatParameter, IntParameter

AT_THE_EDGE: Final = 0.05  # of a range, in its own scale
NEAR_THE_EDGE: Final = 0.2
FACTOR: Final = 3  # by which an end of a logarithmic range is moved


def end_to_move(
    parameter: FloatParameter | IntParameter, values: Sequence[object]
) -> tuple[str, float] | None:
    """The end ("low", "high") that the leaders lie at, and where it could lie; None: at none."""
    numbers = [float(value) for value in values if isinstance(value, (int, float))]
    low, high = parameter.low, parameter.high
    if not numbers or low == high:
        return None
    scale = math.log if parameter.log else float
    width = scale(high) - scale(low)
    places = [(scale(number) - scale(low)) / width for number in numbers]
    if places[0] <= AT_THE_EDGE and median(places) <= NEAR_THE_EDGE:
        wider = low / FACTOR if parameter.log else low - _half(parameter)
        # Zero is where a rate or a weight ends.
        wider = wider if low < 0 else max(wider, 0)
        return ("low", _whole(parameter, wider)) if wider < low else None
    if places[0] >= 1 - AT_THE_EDGE and median(places) >= 1 - NEAR_THE_EDGE:
        wider = high * FACTOR if parameter.log else high + _half(parameter)
        return "high", _whole(parameter, wider)
    return None


def _half(parameter: FloatParameter | IntParameter) -> float:
    """About half the width of a range, a multiple of its step."""
    half, step = (parameter.high - parameter.low) / 2, parameter.step
    return half if step is None else max(1, round(half / step)) * step


def _whole(parameter: FloatParameter | IntParameter, end: float) -> float:
    return end if isinstance(parameter, FloatParameter) else max(1, round(end))
