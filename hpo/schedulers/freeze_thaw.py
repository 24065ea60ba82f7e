"""Freeze-thaw: the surrogate decides which trial is resumed, which pauses, which starts.

Trials run to their first rung, a few epochs in, and compete there: the surrogate estimates how
much each paused trial, and each configuration not tried yet, would improve on the incumbent in
some epochs more. The best one runs to its next rung; the others keep their checkpoints and may be
resumed later. A trial also competes half way to its first rung, if the surrogate expects it to
end clearly worse than the best trial.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

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
from hpo.surrogate.surrogate import Forecast, Surrogate


@dataclass
class _Trial(TrialState):
    """A trial's state, and the point (d,) of its params in the unit cube."""

    point: FloatArray


class FreezeThaw(PausingScheduler[_Trial]):
    """Keeps the trials of a freeze-thaw search, and chooses what runs next.

    A choice depends only on the seed, the trials and their curves, so a resumed search goes on as
    an unbroken one. Trial 0, the default configuration, is trained to its end at once.

    Args:
        space: The searched parameters.
        max_epochs: The length of a training, in epochs.
        maximise: Whether a larger value is better.
        seed: The seed of all random draws.
        first_rung: The epoch of the first rung; None: a share of max_epochs.
        is_allowed: Says whether a configuration may be started; None: each one may.
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
        # What the surrogate said at the latest choice, by trial: the value expected at the end,
        # and for paused trials the acquisition's score.
        self._ends: Mapping[int, float] = {}
        self._scores: Mapping[int, float] = {}

    def set_first_rungs(self, chosen: Sequence[FirstRung]) -> None:
        """Sets the first rungs; each holds for trials from its `from_trial` on."""
        self._first_rungs = tuple(chosen)
        for one in chosen:
            above = tuple(rung for rung in self._rungs_and_below if rung >= one.epoch)
            self._rungs.set_from(one.from_trial, above)

    def choose_rungs(self) -> tuple[FirstRung, ...] | None:
        """All first rungs and a new one, once twice as many trials as before are late."""
        curves = [t.curve for t in self._trials.values() if t.state != Phase.FAILED]
        is_set = self._is_first_set
        if is_set or not is_due(self._first_rungs, curves, self._max_epochs):
            return None
        next_number = max(self._trials, default=-1) + 1
        chosen = choose_first_rung([curves], self._max_epochs, from_trial=next_number)
        return None if chosen is None else (*self._first_rungs, chosen)

    def weigh_costs(self, seconds: Mapping[int, float]) -> None:
        """Divides gains by GPU-seconds from now on; `seconds` is an epoch's, by trial number."""
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
        """The state that the surrogate's next fit begins from; None before the first fit."""
        return self._surrogate.state

    @model_state.setter
    def model_state(self, values: list[float] | None) -> None:
        self._surrogate.state = values

    def least_promising(self, besides: int | None = None) -> int | None:
        """The paused trial whose expected end was the worst at the latest choice, or None."""
        paused = [n for n in self.paused_trials() if n not in (besides, self.last_one)]
        return min(paused, key=lambda n: self._ends.get(n, math.inf), default=None)

    def in_line(self, paused: Sequence[int]) -> tuple[int, ...]:
        known = [number for number in paused if number in self._scores]
        return tuple(sorted(known, key=lambda number: (-self._scores[number], number)))

    @on_one_thread
    def next(self, paused: Sequence[int], *, may_start: bool) -> Choice:
        """The best to run now among these paused trials and, if `may_start`, new ones."""
        may_start = may_start and not self.is_exhausted
        if not paused:
            return Start(self.propose()) if may_start else Wait()
        observed = self._observed()
        if may_start and observed.is_starting_up:
            return Start(self._surrogate.startup_params(observed))
        acquisition = self._fit(observed)
        self._scores = acquisition.scores_of(paused)
        number = max(self._scores, key=self._scores.__getitem__)
        paused_score = self._scores[number]
        if not may_start:
            return Resume(number)
        point, new_score = acquisition.best_new()
        if paused_score >= new_score:
            return Resume(number)
        return Start(self._candidates.cube.decode(point))

    @property
    def is_blind(self) -> bool:
        """Whether all trials but failed ones still run, and are NUM_STARTUP_TRIALS or more."""
        running = sum(trial.state == Phase.RUNNING for trial in self._trials.values())
        known = sum(trial.state != Phase.FAILED for trial in self._trials.values())
        return known == running >= NUM_STARTUP_TRIALS

    def ends_with_one(self, *, compares_finalists: bool) -> bool:
        """Whether the search ends by training its most promising trial to the end.

        Finalists that are compared are trained anew, so none has to have ended but the default
        (trial 0). Without a comparison, or if the default was pruned or failed, one trial has to.
        """
        default = self._trials.get(0)
        has_lost_default = default is not None and default.state in {Phase.PRUNED, Phase.FAILED}
        return not compares_finalists or has_lost_default

    @property
    def is_exhausted(self) -> bool:
        """Whether every configuration of the space that may be started has been tried."""
        return self._candidates.is_exhausted([trial.point for trial in self._trials.values()])

    @on_one_thread
    def propose(self) -> Params:
        """The most promising configuration not tried yet; any, if all have been tried."""
        observed = self._observed()
        if observed.is_starting_up:
            return self._surrogate.startup_params(observed)
        return self._candidates.cube.decode(self._fit(observed).best_new()[0])

    @on_one_thread
    def expected_gains(self, paused: Sequence[int]) -> dict[int | None, float]:
        """Expected improvement of each paused trial and a new one (None) on the best trial.

        The gains are in the objective's unit. There are none until the default configuration
        (trial 0) has ended and the startup trials have begun.
        """
        default, observed = self._trials.get(0), self._observed()
        if default is None or default.state == Phase.RUNNING or observed.is_starting_up:
            return {}
        acquisition = self._surrogate.acquisition(observed, horizon=self._max_epochs)
        gains: dict[int | None, float] = {}
        if paused:
            found = acquisition.gains(np.array([self._trials[n].point for n in paused]))
            gains.update(zip(paused, found.tolist(), strict=True))
        if not self.is_exhausted:
            point, _ = acquisition.best_new()
            gains[None] = float(acquisition.gains(point[None], are_new=True)[0])
        return gains

    def ranking(self) -> tuple[int, ...]:
        """Started trials in the order of their best epochs' expected values, the best first."""
        return self._surrogate.ranking(self._observed())

    def survey(self, num: int) -> list[tuple[Params, float]]:
        """Params and expected final values of `num` configurations spread over the space.

        Configurations that may not be started are left out. Values are in the objective's unit.
        """
        survey = self._surrogate.survey(self._observed(), num)
        return [(params, self._sign * end) for params, end in survey]

    def forecast(self, number: int) -> Forecast | None:
        """What is expected of a trial from its last epoch on; None: too little is known."""
        observed, trial = self._observed(), self._trials[number]
        epochs = range(trial.epoch, self._max_epochs + 1)
        if observed.is_starting_up or not trial.curve or len(epochs) < 2:
            return None
        return self._surrogate.forecast(observed, number, epochs).signed(self._sign)

    def forecasts_of_the_past(self, most: int) -> list[tuple[float, Forecast]]:
        """Values of trials at rungs, with what was to be expected of them at the rung before.

        At the first rung that is what was expected of their params. Each forecast knows the
        trials that had begun before, and the present hyperparameters; those of the latest trials
        are taken, at most `most`.
        """
        observed, found = self._observed(), list[tuple[float, Forecast]]()
        for number, trial in sorted(observed.known.items(), reverse=True):
            then = {n: one for n, one in observed.trials.items() if n < number}
            reached = [rung for rung in self._rungs.of(number) if rung in trial.curve]
            for before, rung in zip([0, *reached], reached, strict=False):
                cut = {epoch: value for epoch, value in trial.curve.items() if epoch <= before}
                known = replace(observed, trials=then | {number: replace(trial, curve=cut)})
                if len(found) == most or known.is_starting_up or not known.seen:
                    return found
                if not math.isnan(trial.curve[rung]):
                    expected = self._surrogate.forecast(known, number, [rung])
                    value = self._sign * trial.curve[rung]
                    found.append((value, expected.signed(self._sign)))
        return found

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
        """The epoch half way to a trial's first rung; 0 where so few epochs tell nothing."""
        return self._half_way_to(self._rungs.of(number)[0])

    def _half_way_to(self, first: int) -> int:
        return half_way(first) if first <= self._default_first else 0

    def _observed(self) -> Observations:
        """All started trials as the surrogate sees them."""
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
        """The first epoch whose values count: values before a raised first rung mislead."""
        first = self._rungs.latest[0]
        is_known = any(
            trial.epoch >= first for trial in self._trials.values() if trial.state != Phase.FAILED
        )
        return first if first > self._default_first and is_known else 0
