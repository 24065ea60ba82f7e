"""The observations that the surrogate sees, and the rows that its model is made of."""

import functools
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from hpo.surrogate.arrays import FloatArray

MAX_ROWS: Final = 250  # rows of a fit; the candidates' last rows may exceed it
NUM_STARTUP_TRIALS: Final = 6


class Phase(StrEnum):
    """A trial's state for the surrogate. PRUNED: given up, its curve is cut. FAILED: broke."""

    RUNNING = "running"
    PAUSED = "paused"
    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"


@dataclass(frozen=True)
class ObservedTrial:
    """A started trial as the surrogate sees it.

    Attributes:
        point: (d,) the trial's params in the unit cube.
        curve: The objective by epoch, larger is better; NaN where the training diverged.
        phase: Whether the trial runs, is paused, or how it ended.
        next_stop: The epoch at which the trial next competes or ends.
    """

    point: FloatArray
    curve: Mapping[int, float]
    phase: Phase
    next_stop: int

    @functools.cached_property
    def epoch(self) -> int:
        """The last epoch of the curve; 0 before the first."""
        return max(self.curve, default=0)

    @property
    def is_candidate(self) -> bool:
        """Whether the trial may go on."""
        return self.phase in {Phase.PAUSED, Phase.RUNNING}


@dataclass(frozen=True)
class Observations:
    """All that the surrogate is told at one decision.

    Attributes:
        trials: Every trial that has started, by number.
        max_epochs: The length of a training, in epochs.
        rungs: Epochs at which trials are compared; the surrogate sees each curve at these epochs
            and at the curve's last one.
        first_epoch: Values of earlier epochs are left out, as they do not predict later ones.
    """

    trials: Mapping[int, ObservedTrial]
    max_epochs: int
    rungs: frozenset[int]
    first_epoch: int = 0

    @functools.cached_property
    def known(self) -> dict[int, ObservedTrial]:
        """The trials that did not fail, by number."""
        return {n: trial for n, trial in self.trials.items() if trial.phase != Phase.FAILED}

    @property
    def is_starting_up(self) -> bool:
        """Whether too few trials have started, or none has reported, to fit a surrogate."""
        has_reports = any(trial.curve for trial in self.known.values())
        return len(self.trials) < NUM_STARTUP_TRIALS or not has_reports

    @property
    def num_epochs(self) -> int:
        """The number of epochs of all curves together."""
        return sum(len(trial.curve) for trial in self.trials.values())

    @functools.cached_property
    def seen(self) -> tuple[tuple[int, int], ...]:
        """(trial number, epoch) of each value that the surrogate learns from, in this order."""
        return tuple(
            (number, epoch)
            for number, trial in self.known.items()
            for epoch in sorted({e for e in self.rungs if e < trial.epoch} | {trial.epoch})
            if epoch in trial.curve and epoch >= self.first_epoch
        )

    def values(self) -> dict[tuple[int, int], float]:
        """The seen values by (trial number, epoch); the worst one in place of each NaN."""
        values = {(n, epoch): self.trials[n].curve[epoch] for n, epoch in self.seen}
        worst = min((v for v in values.values() if not math.isnan(v)), default=0.0)
        return {at: worst if math.isnan(value) else value for at, value in values.items()}

    def times(self, epochs: Sequence[float] | FloatArray) -> FloatArray:
        """(n,) times in 0..1 of epochs (n,); see `log_times`."""
        return log_times(epochs, self.max_epochs)


@dataclass(frozen=True)
class Rows:
    """n values of curves: params as points (n, d) of the unit cube, times (n,), values (n,).

    A time is the epoch's logarithm, scaled to 0 at the first epoch and 1 at the last.
    """

    points: FloatArray
    times: FloatArray
    values: FloatArray

    def __len__(self) -> int:
        return len(self.times)

    def equals(self, other: "Rows") -> bool:
        """Whether both hold equal arrays."""
        return all(map(np.array_equal, vars(self).values(), vars(other).values()))

    @property
    def fingerprint(self) -> float:
        """A checksum, a whole number that different rows hardly ever share."""
        return float(zlib.crc32(b"".join(array.tobytes() for array in vars(self).values())))


def log_times(epochs: Sequence[float] | FloatArray, max_epochs: int) -> FloatArray:
    """(n,) logarithms of epochs (n,), scaled to 0 at epoch 1 and 1 at `max_epochs`."""
    if max_epochs == 1:
        return np.ones(len(epochs))
    times: FloatArray = np.log(np.asarray(epochs, float)) / math.log(max_epochs)
    return times


def thinned(
    observations: Observations,
    max_rows: int,
    rng: np.random.Generator,
    always: Set[int] = frozenset(),
) -> Sequence[tuple[int, int]]:
    """The (trial number, epoch) of about `max_rows` values, to make a model's rows of.

    The last value of each candidate (a paused or running trial) and of each trial in `always` is
    kept: the model is asked about these trials, and must know how they are doing. The rest of
    `max_rows`, but at least half of it, goes to whole trials: one half to the trials with the
    best values, the other half to random trials. The last trial of each half may lack its earlier
    epochs.
    """
    seen, trials = observations.seen, observations.trials
    if len(seen) <= max_rows:
        return seen
    by_trial: dict[int, list[tuple[int, int]]] = {}
    for number, epoch in seen:
        by_trial.setdefault(number, []).append((number, epoch))
    kept = {rows[-1] for n, rows in by_trial.items() if n in always or trials[n].is_candidate}
    room = max(max_rows - len(kept), max_rows // 2)
    best = sorted(by_trial, key=lambda n: -_best_value(by_trial[n], trials))
    _fill(kept, (by_trial[n] for n in best), room // 2)
    at_random = (by_trial[best[i]] for i in rng.permutation(len(best)))
    _fill(kept, at_random, room - room // 2)
    return [one for one in seen if one in kept]


def _best_value(seen: Iterable[tuple[int, int]], trials: Mapping[int, ObservedTrial]) -> float:
    values = [trials[number].curve[epoch] for number, epoch in seen]
    return max((value for value in values if not math.isnan(value)), default=-math.inf)


def _fill(
    kept: set[tuple[int, int]], trials: Iterable[Sequence[tuple[int, int]]], num: int
) -> None:
    """Adds one trial's rows after another's to `kept`, at most `num` new rows in all."""
    for rows in trials:
        new = [row for row in rows if row not in kept]
        kept.update(new[max(0, len(new) - num) :])
        num -= len(new)
        if num <= 0:
            return
