"""The surrogate: what a search has learnt of its space and its trials' curves."""

import math
from collections.abc import Mapping, Set
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
from hpo.surrogate.rows import MAX_ROWS, Observations, ObservedTrial, Rows, thinned

# Standard deviations that a trial's expected end lies below the best one's, for it to be called
# hopeless. Source: docs/performance.md.
BELOW_BEST: Final = 1.0
MAX_FRONT: Final = 500  # trials of a ranking that are judged by their own last values


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
        self._fitted_to: float | None = None  # fingerprint of the rows of the latest fit
        self._latest: _Posterior | None = None  # is what `_fitted` gives again for the same rows
        self._costs: EpochCosts | None = None

    @property
    def state(self) -> list[float] | None:
        """What the next fit begins from; None before the first.

        The logarithms (d + 4,) of the hyperparameters, and the fingerprint of the rows that they
        were fitted to: to the same rows they are not fitted again, so a decision that a crash
        left half done is made again as it was.
        """
        if self._hyperparameters is None or self._fitted_to is None:
            return None
        return [*self._hyperparameters.tolist(), self._fitted_to]

    @state.setter
    def state(self, values: list[float] | None) -> None:
        num = len(self._candidates.cube.names) + 4
        self._hyperparameters = self._fitted_to = self._latest = None
        if values is not None and len(values) >= num:
            self._hyperparameters = np.array(values[:num])
            self._fitted_to = next(iter(values[num:]), math.nan)  # earlier versions kept none

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
        fitted = self._fitted(observations)
        self._hyperparameters = fitted.model.hyperparameters
        self._fitted_to = fitted.rows.fingerprint

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
        posterior = self._fitted(observations)
        ranking = _by_best_epoch(observations, known, posterior.model)
        if len(posterior.rows) == len(observations.seen()):
            return ranking
        # Those at the front are judged by their own curves, whatever the fit had room for.
        front = {n: known[n] for n in ranking[:MAX_FRONT]}
        _, rows = self._rows(observations, always=front.keys())
        is_categorical = self._candidates.cube.is_categorical
        model = CurveModel(rows, is_categorical, posterior.model.hyperparameters, 0)
        return _by_best_epoch(observations, front, model) + ranking[MAX_FRONT:]

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
            num_iterations = 0 if rows.fingerprint == self._fitted_to else NUM_ITERATIONS
            self._latest = _Posterior(rows, warp, self._model(rows, num_iterations))
        return self._latest

    def _model(self, rows: Rows, num_iterations: int) -> CurveModel:
        is_categorical = self._candidates.cube.is_categorical
        return CurveModel(rows, is_categorical, self._hyperparameters, num_iterations)

    def _rows(
        self, observations: Observations, always: Set[int] = frozenset()
    ) -> tuple[OutputWarp, Rows]:
        """The rows that a model is made of, and the warp that their values went through."""
        trials, values = observations.trials, observations.values()
        warp = OutputWarp(np.array(list(values.values())))
        rng = np.random.default_rng([*self._seeds(observations), 1])
        seen = thinned(observations, self._max_rows, rng, always)
        rows = Rows(
            np.array([trials[number].point for number, _ in seen]),
            observations.times([epoch for _, epoch in seen]),
            warp.forward(np.array([values[at] for at in seen])),
        )
        return warp, rows

    def _generator(self, observations: Observations) -> np.random.Generator:
        return np.random.default_rng(self._seeds(observations))

    def _seeds(self, observations: Observations) -> list[int]:
        return [self._seed, len(observations.trials), observations.num_epochs]


def _by_best_epoch(
    observations: Observations, trials: Mapping[int, ObservedTrial], model: CurveModel
) -> tuple[int, ...]:
    """Trials in the order of their best epochs' expected values."""
    last = observations.max_epochs
    diverged = {n for n, trial in trials.items() if math.isnan(trial.curve.get(last, 0.0))}
    at = [one for one in observations.seen() if one[0] in trials and one[0] not in diverged]
    at += [(number, last) for number in trials]
    points = np.array([trials[number].point for number, _ in at])
    times = observations.times([epoch for _, epoch in at])
    mean, _ = model.predict(points, times, with_sd=False)
    best: dict[int, float] = {}
    for (number, _), value in zip(at, mean.tolist(), strict=True):
        best[number] = max(value, best.get(number, -math.inf))
    return tuple(sorted(trials, key=lambda number: -best[number]))
