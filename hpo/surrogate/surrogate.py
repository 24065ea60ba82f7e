"""The surrogate: what a search has learnt of its space and its trials' curves."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from hpo.config.search_space import Params
from hpo.surrogate.acquisition import Acquisition
from hpo.surrogate.arrays import FloatArray, on_one_thread
from hpo.surrogate.candidates import Candidates
from hpo.surrogate.cost_model import EpochCosts
from hpo.surrogate.gp import NUM_ITERATIONS, CurveModel
from hpo.surrogate.output_warp import OutputWarp
from hpo.surrogate.rows import MAX_ROWS, Observations, Rows, thinned, values_of

# Standard deviations that a trial's expected end lies below the best one's, for it to be called
# hopeless. Source: docs/performance.md.
BELOW_BEST: Final = 1.0


@dataclass(frozen=True)
class _Posterior:
    """A model of rows, and the warp that their values went through."""

    rows: Rows
    warp: OutputWarp
    model: CurveModel


class Surrogate:
    """A Gaussian process of all curves, and the proposals that follow from it.

    `fit` alone changes the hyperparameters that later fits begin from. All other methods answer
    by a model of what is observed now, and leave no trace: asked twice, they say the same.

    Args:
        candidates: The points that may be begun.
        seed: Of all draws, with the number of trials and epochs observed.
        max_rows: Rows that a model is fitted to, at most.
    """

    def __init__(self, candidates: Candidates, seed: int, max_rows: int = MAX_ROWS) -> None:
        self._candidates, self._seed, self._max_rows = candidates, seed, max_rows
        self._hyperparameters: FloatArray | None = None
        self._latest: _Posterior | None = None  # is what `_fitted` gives again for the same rows
        self._costs: EpochCosts | None = None

    @property
    def state(self) -> list[float] | None:
        """What the next fit begins from; None before the first."""
        return None if self._hyperparameters is None else self._hyperparameters.tolist()

    @state.setter
    def state(self, values: list[float] | None) -> None:
        self._hyperparameters = None if values is None else np.array(values)
        self._latest = None

    def weigh_costs(self, points: Mapping[int, FloatArray], seconds: Mapping[int, float]) -> None:
        """From now on scores are by the GPU-second.

        Args:
            points: (d,) where each trial lies, by number.
            seconds: GPU-seconds of an epoch, by number, of the trials that were timed.
        """
        self._costs = self._costs or EpochCosts(self._candidates.cube.is_categorical)
        self._costs.learn(points, seconds)

    @on_one_thread
    def fit(self, observations: Observations) -> None:
        """Fits the hyperparameters to what is observed; later fits go on from them."""
        self._hyperparameters = self._fitted(observations).model.hyperparameters

    @on_one_thread
    def propose(self, observations: Observations) -> Params:
        """Fits, and gives the most promising configuration not tried; any, if all have been."""
        if observations.is_starting_up:
            return self.startup_params(observations)
        self.fit(observations)
        point, _ = self.acquisition(observations).best_new()
        return self._candidates.cube.decode(point)

    def startup_params(self, observations: Observations) -> Params:
        """The next configuration of a sequence that covers the space."""
        return self._candidates.startup_params([t.point for t in observations.trials.values()])

    @on_one_thread
    def acquisition(self, observations: Observations, horizon: int | None = None) -> Acquisition:
        """The scores of one decision; `horizon` as of Acquisition."""
        posterior = self._fitted(observations)
        return Acquisition(
            observations,
            posterior.model,
            posterior.warp,
            self._candidates,
            self._generator(observations),
            horizon=horizon,
            costs=self._costs,
        )

    @on_one_thread
    def ranking(self, observations: Observations) -> tuple[int, ...]:
        """Numbers of trials with a curve, the one first whose best epoch is expected to be best.

        That epoch is the last one, or where a curve falls one that the trial has come to: what
        is delivered of a training is its best epoch.
        """
        known = {n: trial for n, trial in observations.known.items() if trial.curve}
        if len(known) < 2:
            return tuple(known)
        model = self._fitted(observations).model
        last = observations.max_epochs
        diverged = {n for n, trial in known.items() if math.isnan(trial.curve.get(last, 0.0))}
        at = [one for one in observations.seen() if one[0] not in diverged]
        at += [(number, last) for number in known]
        points = np.array([known[number].point for number, _ in at])
        times = observations.times([epoch for _, epoch in at])
        mean, _ = model.predict(points, times, with_sd=False)
        best: dict[int, float] = {}
        for (number, _), value in zip(at, mean.tolist(), strict=True):
            best[number] = max(value, best.get(number, -math.inf))
        return tuple(sorted(known, key=lambda number: -best[number]))

    @on_one_thread
    def survey(self, observations: Observations, num: int) -> list[tuple[Params, float]]:
        """Of `num` configurations all over the space those that may be begun.

        Each comes with the value, in the objective's unit and larger is better, that it is
        expected to end at.
        """
        posterior = self._fitted(observations)
        points = self._candidates.sobol(num)
        points = points[self._candidates.allowed(points)]
        mean, _ = posterior.model.predict(points, np.ones(len(points)), with_sd=False)
        ends = posterior.warp.backward(mean).tolist()
        return list(zip(map(self._candidates.cube.decode, points), ends, strict=True))

    @on_one_thread
    def is_hopeless(self, observations: Observations, number: int) -> bool:
        """Whether a trial is expected to end well below the best, as the model was last fitted."""
        if observations.is_starting_up:
            return False
        _, rows = self._rows(observations)
        model = self._model(rows, num_iterations=0)
        known = [trial for trial in observations.known.values() if trial.curve]
        points = np.array([observations.trials[number].point, *(t.point for t in known)])
        mean, sd = model.predict(points, np.ones(len(points)))
        return bool(mean[0] + BELOW_BEST * sd[0] < mean[1:].max())

    def _fitted(self, observations: Observations) -> _Posterior:
        """The posterior of what is observed, its hyperparameters fitted from the state."""
        warp, rows = self._rows(observations)
        if self._latest is None or not self._latest.rows.equals(rows):
            self._latest = _Posterior(rows, warp, self._model(rows, NUM_ITERATIONS))
        return self._latest

    def _model(self, rows: Rows, num_iterations: int) -> CurveModel:
        is_categorical = self._candidates.cube.is_categorical
        return CurveModel(rows, is_categorical, self._hyperparameters, num_iterations)

    def _rows(self, observations: Observations) -> tuple[OutputWarp, Rows]:
        """The rows that a model is made of, and the warp that their values went through."""
        trials, seen = observations.trials, observations.seen()
        values = values_of(seen, trials)
        warp = OutputWarp(values)
        kept = thinned(values, self._max_rows, self._generator(observations))
        seen = [seen[i] for i in kept]
        rows = Rows(
            np.array([trials[number].point for number, _ in seen]),
            observations.times([epoch for _, epoch in seen]),
            warp.forward(values)[kept],
        )
        return warp, rows

    def _generator(self, observations: Observations) -> np.random.Generator:
        num_trials, num_epochs = len(observations.trials), observations.num_epochs
        return np.random.default_rng([self._seed, num_trials, num_epochs])
