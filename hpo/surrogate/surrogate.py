"""The surrogate: a model of the trials' curves over the space, and its proposals."""

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import ndtri

from hpo.config.search_space import Params
from hpo.surrogate.acquisition import Acquisition
from hpo.surrogate.arrays import FloatArray, on_one_thread
from hpo.surrogate.candidates import Candidates
from hpo.surrogate.cost_model import EpochCosts
from hpo.surrogate.gp import NUM_ITERATIONS, CurveModel
from hpo.surrogate.kernel import NUM_OTHERS, noise
from hpo.surrogate.output_warp import OutputWarp
from hpo.surrogate.rows import MAX_ROWS, Observations, ObservedTrial, Rows, thinned

# A trial is hopeless if its expected end plus this many standard deviations is below the best
# expected end. Source: docs/performance.md.
BELOW_BEST: Final = 1.0
FORECAST_SHARE: Final = 0.8  # of what is measured lies inside the intervals of a forecast
Z_OF_FORECAST: Final = float(ndtri((1 + FORECAST_SHARE) / 2))
MAX_FRONT: Final = 500  # best trials of a ranking, judged by their own last values


@dataclass(frozen=True)
class Forecast:
    """What a surrogate expects to be measured of a trial.

    Attributes:
        epochs: The epochs.
        low: Lower ends of FORECAST_SHARE intervals, by epoch.
        middle: Medians, by epoch.
        high: Upper ends of the intervals, by epoch.
    """

    epochs: tuple[int, ...]
    low: tuple[float, ...]
    middle: tuple[float, ...]
    high: tuple[float, ...]

    def signed(self, sign: float) -> "Forecast":
        """The forecast of the values times `sign`, 1 or -1."""
        if sign > 0:
            return self
        negated = (tuple(-value for value in end) for end in (self.high, self.middle, self.low))
        return Forecast(self.epochs, *negated)


@dataclass(frozen=True)
class _Posterior:
    """A fitted model, its rows, and the warp that made their values."""

    rows: Rows
    warp: OutputWarp
    model: CurveModel


class Surrogate:
    """A Gaussian process of all curves, and proposals of what to train next.

    Only `fit` (and so `propose`) changes the hyperparameters that later fits begin from. The other
    methods that take observations change nothing: for the same observations they return the same.

    Args:
        candidates: The points that may be started.
        seed: Seeds all draws, together with the numbers of observed trials and epochs.
        max_rows: About how many rows a model is fitted to; see `rows.thinned`.
    """

    def __init__(self, candidates: Candidates, seed: int, max_rows: int = MAX_ROWS) -> None:
        self._candidates, self._seed, self._max_rows = candidates, seed, max_rows
        self._hyperparameters: FloatArray | None = None
        self._fitted_to: float | None = None  # fingerprint of the rows of the latest fit
        self._latest: _Posterior | None = None  # for `_fitted`, if the rows are the same
        self._costs: EpochCosts | None = None

    @property
    def state(self) -> list[float] | None:
        """The state that the next fit begins from, d + 6 numbers; None before the first fit.

        These are the logarithms of d + 5 hyperparameters and the fingerprint of the rows that
        they were fitted to. Hyperparameters are not fitted to the same rows again, so a decision
        that a crash interrupted is repeated exactly.
        """
        if self._hyperparameters is None or self._fitted_to is None:
            return None
        return [*self._hyperparameters.tolist(), self._fitted_to]

    @state.setter
    def state(self, values: list[float] | None) -> None:
        num = len(self._candidates.cube.names) + NUM_OTHERS
        self._hyperparameters = self._fitted_to = self._latest = None
        if values is not None and len(values) == num + 1:  # else that of another space or version
            self._hyperparameters, self._fitted_to = np.array(values[:num]), values[num]

    def weigh_costs(self, points: Mapping[int, FloatArray], seconds: Mapping[int, float]) -> None:
        """Divides expected improvements by an epoch's GPU-seconds from now on.

        Args:
            points: Each trial's point (d,) in the unit cube, by number.
            seconds: GPU-seconds of an epoch by number, for the trials that were timed.
        """
        self._costs = self._costs or EpochCosts(self._candidates.cube.is_categorical)
        self._costs.learn(points, seconds)

    @on_one_thread
    def fit(self, observations: Observations) -> None:
        """Fits the hyperparameters to the observations; later fits begin from these."""
        fitted = self._fitted(observations)
        self._hyperparameters = fitted.model.hyperparameters
        self._fitted_to = fitted.rows.fingerprint

    @on_one_thread
    def propose(self, observations: Observations) -> Params:
        """Fits, and returns the most promising untried configuration; any, if all were tried."""
        if observations.is_starting_up:
            return self.startup_params(observations)
        self.fit(observations)
        point, _ = self.acquisition(observations).best_new()
        return self._candidates.cube.decode(point)

    def startup_params(self, observations: Observations) -> Params:
        """The next configuration of a Sobol sequence, which covers the space."""
        return self._candidates.startup_params([t.point for t in observations.trials.values()])

    @on_one_thread
    def acquisition(self, observations: Observations, horizon: int | None = None) -> Acquisition:
        """The acquisition function of one decision; `horizon` as of Acquisition."""
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
        """Numbers of trials with a curve, by the expected value of their best epochs.

        The best trial comes first. A trial's best epoch is the end of training or, where a curve
        falls, an epoch that the trial has reached: a training delivers its best epoch.
        """
        known = {n: trial for n, trial in observations.known.items() if trial.curve}
        if len(known) < 2:
            return tuple(known)
        posterior = self._fitted(observations)
        ranking = _by_best_epoch(observations, known, posterior.model)
        if len(posterior.rows) == len(observations.seen):
            return ranking
        # The best ones are judged by their own last values, even if the fit left these out.
        front = {n: known[n] for n in ranking[:MAX_FRONT]}
        _, rows = self._rows(observations, always=front.keys())
        is_categorical = self._candidates.cube.is_categorical
        model = CurveModel(rows, is_categorical, posterior.model.hyperparameters, 0)
        return _by_best_epoch(observations, front, model) + ranking[MAX_FRONT:]

    @on_one_thread
    def survey(self, observations: Observations, num: int) -> list[tuple[Params, float]]:
        """Params and expected final values of `num` configurations spread over the space.

        Configurations that may not be started are left out. Values are in the objective's unit,
        signed so that larger is better.
        """
        posterior = self._fitted(observations)
        points = self._candidates.sobol(num)
        points = points[self._candidates.allowed(points)]
        mean, _ = posterior.model.predict(points, np.ones(len(points)), with_sd=False)
        ends = posterior.warp.backward(mean).tolist()
        return list(zip(map(self._candidates.cube.decode, points), ends, strict=True))

    @on_one_thread
    def forecast(self, observations: Observations, number: int, epochs: Sequence[int]) -> Forecast:
        """What is expected of a trial at epochs; fits no hyperparameters.

        Values are in the objective's unit, signed so that larger is better.
        """
        warp, rows = self._rows(observations, always={number})
        model = self._model(rows, num_iterations=0)
        points = np.repeat(observations.trials[number].point[None], len(epochs), axis=0)
        mean, sd = model.predict(points, observations.times(epochs))
        spread = Z_OF_FORECAST * np.sqrt(sd**2 + noise(model.hyperparameters))
        low, middle, high = (
            tuple(warp.backward(mean + sign * spread).tolist()) for sign in (-1, 0, 1)
        )
        return Forecast(tuple(epochs), low, middle, high)

    @on_one_thread
    def is_hopeless(self, observations: Observations, number: int) -> bool:
        """Whether a trial is expected to end well below the best; fits no hyperparameters."""
        if observations.is_starting_up:
            return False
        _, rows = self._rows(observations)
        model = self._model(rows, num_iterations=0)
        known = [trial for trial in observations.known.values() if trial.curve]
        points = np.array([observations.trials[number].point, *(t.point for t in known)])
        mean, sd = model.predict(points, np.ones(len(points)))
        return bool(mean[0] + BELOW_BEST * sd[0] < mean[1:].max())

    def _fitted(self, observations: Observations) -> _Posterior:
        """The posterior of the observations; its hyperparameters' fit begins from `state`."""
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
        """The rows that a model is made of, and the warp that made their values."""
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
    """Trial numbers in the order of their best epochs' expected values, the best first."""
    last = observations.max_epochs
    diverged = {n for n, trial in trials.items() if math.isnan(trial.curve.get(last, 0.0))}
    at = [one for one in observations.seen if one[0] in trials and one[0] not in diverged]
    at += [(number, last) for number in trials]
    points = np.array([trials[number].point for number, _ in at])
    times = observations.times([epoch for _, epoch in at])
    mean, _ = model.predict(points, times, with_sd=False)
    best: dict[int, float] = {}
    for (number, _), value in zip(at, mean.tolist(), strict=True):
        best[number] = max(value, best.get(number, -math.inf))
    return tuple(sorted(trials, key=lambda number: -best[number]))
