"""Milliseconds of models that are compared, measured by turns."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

BATCH_SIZES: Final = (1, 8)  # at which files are timed
WARM_UP_RUNS: Final = 2
MIN_RUNS, MAX_RUNS = 5, 60
SECONDS_EACH: Final = 3.0


@dataclass(frozen=True)
class Latency:
    """Median and 95th percentile of a batch's milliseconds on this machine's CPU."""

    p50: float
    p95: float


def latencies(runs: Mapping[str, Callable[[], object]]) -> dict[str, Latency]:
    """The latency of each run; all take turns, so that what slows the machine slows all alike.

    Each runs 5 to 60 times, as often as three seconds for each allow, after two warm-up runs.

    Args:
        runs: Functions by name; each computes a batch.
    """
    for run in runs.values():
        for _ in range(WARM_UP_RUNS):
            run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    start = time.perf_counter()
    for turn in range(MAX_RUNS):
        if turn >= MIN_RUNS and time.perf_counter() - start > SECONDS_EACH * len(runs):
            break
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - begin) * 1e3)
    return {name: _latency(found) for name, found in times.items()}


def repeated(images: npt.NDArray[Any], num: int) -> npt.NDArray[Any]:
    """A batch of so many images; too few begin again."""
    return np.resize(images, (num, *images.shape[1:]))


def _latency(times: list[float]) -> Latency:
    p50, p95 = np.percentile(times, (50, 95))
    return Latency(round(float(p50), 3), round(float(p95), 3))
