"""Which trial to train on, which to pause, which to begin: decided by the surrogate.

Trials run to their first rung, a few epochs in, and compete there: the surrogate says of each
paused trial, and of configurations not tried yet, how much it may gain in some epochs more. The
best one runs to its next rung; the others keep their checkpoints and may be resumed later. Half
way to its first rung a trial competes, too, if the surrogate expects it to end worse than the
best.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hpo.config.rungs import half_way, rungs, rungs_and_below
from hpo.config.search_space import Params, Space
from hpo.schedulers.base import Choice, Resume, Start, Wait
from hpo.schedulers.first_rung import FirstRung, choose_first_rung, is_due
from hpo.schedulers.pausing import PausingScheduler, TrialState
from hpo.surrogate.acquisition import Acquisition
from hpo.surrogate.arrays import FloatArray, on_one_thread
from hpo.surrogate.candidates import Candidates
from hpo.surrogate.rows import NUM_STARTUP_TRIALS, Observations, ObservedTrial, Phase
from hpo.surrogate.surrogate import Surrogate


@dataclass
class _Trial(TrialState):
    """A trial's state, and the point (d,) of the unit cube where its params lie."""

    point: FloatArray


class FreezeThaw(PausingScheduler[_Trial]):
    """The trials of a freeze-thaw search, and the choice of what runs next.

    What is chosen depends on the seed, the trials and their curves, so a search that is resumed
    goes on as it would have. Trial 0, the default configuration, is trained to its end at once.

    Args:
        space: The searched parameters.
        max_epochs: The length of a training.
        maximise: Whether a larger value is better.
        seed: Of all draws.
        first_rung: The epoch of the first rung; None: a share of max_epochs.
        is_allowed: Says whether a configuration may be begun; None: any may.
    """

    def __init__(
        self,
        space: Space,
        max_epochs: int,
        *,
        maximise: bool,
        seed: int,
        first_rung: int | None = None,
        is_allowed: Callable[[Params], bool] | None = None,
    ) -> None:
        super().__init__(max_epochs, rungs(max_epochs, first_rung), maximise=maximise)
        self._rungs_and_below = rungs_and_below(max_epochs, first_rung)
        self._default_first = self._rungs.latest[0]
        self._is_first_set = first_rung is not None
        self._first_rungs: tuple[FirstRung, ...] = ()
        self._candidates = Candidates(space, seed, is_allowed)
        self._surrogate = Surrogate(self._candidates, seed)
        self._ends: Mapping[int, float] = {}  # expected by the latest choice, by trial

    def set_first_rungs(self, chosen: Sequence[FirstRung]) -> None:
        """Sets the first rungs of trials from a number on; trials before it keep theirs."""
        self._first_rungs = tuple(chosen)
        for one in chosen:
            above = tuple(rung for rung in self._rungs_and_below if rung >= one.epoch)
            self._rungs.set_from(one.from_trial, above)

    def choose_rungs(self) -> tuple[FirstRung, ...] | None:
        """All first rungs, with a new one once twice as many trials as before have come far."""
        curves = [t.curve for t in self._trials.values() if t.state != Phase.FAILED]
        is_set = self._is_first_set
        if is_set or not is_due(self._first_rungs, curves, self._max_epochs):
            return None
        next_number = max(self._trials, default=-1) + 1
        chosen = choose_first_rung([curves], self._max_epochs, from_trial=next_number)
        return None if chosen is None else (*self._first_rungs, chosen)

    def weigh_costs(self, seconds: Mapping[int, float]) -> None:
        """From now on gains count by the GPU-second; given are an epoch's seconds, by trial."""
        points = {n: trial.point for n, trial in self._trials.items()}
        self._surrogate.weigh_costs(points, seconds)

    def started(self, number: int, params: Params) -> None:
        self._trials[number] = _Trial(self._candidates.cube.encode(params))

    def is_at_rung(self, number: int) -> bool:
        return super().is_at_rung(number) or self._is_half_way(number)

    def _competes(self, number: int) -> bool:
        return super().is_at_rung(number) or (
            self._is_half_way(number) and self._surrogate.is_hopeless(self._observed(), number)
        )

    @property
    def model_state(self) -> list[float] | None:
        """What the surrogate's next fit begins from; None before the first."""
        return self._surrogate.state

    @model_state.setter
    def model_state(self, values: list[float] | None) -> None:
        self._surrogate.state = values

    def least_promising(self, besides: int | None = None) -> int | None:
        """The paused trial of the worst end that the latest choice expected."""
        paused = [n for n in self.paused_trials() if n not in (besides, self.last_one)]
        return min(paused, key=lambda n: self._ends.get(n, math.inf), default=None)

    @on_one_thread
    def next(self, paused: Sequence[int], *, may_start: bool) -> Choice:
        """What is best to run now, of these paused trials and new ones."""
        may_start = may_start and not self.is_exhausted
        if not paused:
            return Start(self.propose()) if may_start else Wait()
        observed = self._observed()
        if may_start and observed.is_starting_up:
            return Start(self._surrogate.startup_params(observed))
        acquisition = self._fit(observed)
        number, paused_score = acquisition.best_of(paused)
        if not may_start:
            return Resume(number)
        point, new_score = acquisition.best_new()
        if paused_score >= new_score:
            return Resume(number)
        return Start(self._candidates.cube.decode(point))

    @property
    def is_blind(self) -> bool:
        """Whether no trial but running ones has a curve, and enough of them run to start with."""
        running = sum(trial.state == Phase.RUNNING for trial in self._trials.values())
        known = sum(trial.state != Phase.FAILED for trial in self._trials.values())
        return known == running >= NUM_STARTUP_TRIALS

    def ends_with_one(self, *, compares_finalists: bool) -> bool:
        """Finalists are trained anew, and need not have come to their ends; the default has to."""
        default = self._trials.get(0)
        has_lost_default = default is not None and default.state in {Phase.PRUNED, Phase.FAILED}
        return not compares_finalists or has_lost_default

    @property
    def is_exhausted(self) -> bool:
        """Whether every configuration of the space that may be begun has been tried."""
        return self._candidates.is_exhausted([trial.point for trial in self._trials.values()])

    @on_one_thread
    def propose(self) -> Params:
        """The most promising configuration not tried; any, if all have been."""
        observed = self._observed()
        if observed.is_starting_up:
            return self._surrogate.startup_params(observed)
        return self._candidates.cube.decode(self._fit(observed).best_new()[0])

    @on_one_thread
    def expected_gains(self, paused: Sequence[int]) -> dict[int | None, float]:
        """How much better than the best each may be expected to end (None: a new trial).

        Gains are in the objective's unit. There are none while too little is known to tell: the
        default configuration has not come to its end, or others have not begun.
        """
        default, observed = self._trials.get(0), self._observed()
        if default is None or default.state == Phase.RUNNING or observed.is_starting_up:
            return {}
        acquisition = self._surrogate.acquisition(observed, horizon=self._max_epochs)
        points: dict[int | None, FloatArray] = {n: self._trials[n].point for n in paused}
        if not self.is_exhausted:
            points[None] = acquisition.best_new()[0]
        if not points:
            return {}
        gains = acquisition.gains(np.array(list(points.values())))
        return dict(zip(points, gains.tolist(), strict=True))

    def ranking(self) -> tuple[int, ...]:
        """Started trials, the one first whose best epoch is expected to be the best."""
        return self._surrogate.ranking(self._observed())

    def survey(self, num: int) -> list[tuple[Params, float]]:
        """Of `num` configurations all over the space those that may be begun.

        Each comes with the value that it is expected to end at.
        """
        survey = self._surrogate.survey(self._observed(), num)
        return [(params, self._sign * end) for params, end in survey]

    def _fit(self, observed: Observations) -> Acquisition:
        self._surrogate.fit(observed)
        acquisition = self._surrogate.acquisition(observed)
        self._ends = acquisition.ends
        return acquisition

    def _is_half_way(self, number: int) -> bool:
        """Whether a running trial is half way to its first rung."""
        is_there = 0 < self._trials[number].epoch == self._half_way(number)
        return is_there and not self._runs_on(number)

    def _half_way(self, number: int) -> int:
        """The epoch half way to a trial's first rung; 0 where nothing can be told there."""
        return self._half_way_to(self._rungs.of(number)[0])

    def _half_way_to(self, first: int) -> int:
        return half_way(first) if first <= self._default_first else 0

    def _observed(self) -> Observations:
        """All trials as the surrogate sees them."""
        halves = {self._half_way_to(rungs[0]) for rungs in self._rungs.every()}
        trials = {
            number: ObservedTrial(
                trial.point, trial.curve, Phase(trial.state), self.next_stop(number, trial.epoch)
            )
            for number, trial in self._trials.items()
        }
        seen_at = frozenset(halves.union(*self._rungs.every()))
        return Observations(trials, self._max_epochs, seen_at, self._first_to_tell())

    def _first_to_tell(self) -> int:
        """The epoch from which on values count: what comes before a raised rung misleads."""
        first = self._rungs.latest[0]
        is_known = any(
            trial.epoch >= first for trial in self._trials.values() if trial.state != Phase.FAILED
        )
        return first if first > self._default_first and is_known else 0
