"""Which trial to train on, which to pause, which to begin: decided by a model of all curves.

Trials run to a level, a few epochs in the first place, and there compete: the model says of each
paused trial, and of configurations not tried yet, how much it may gain in some epochs more. The
best one runs to its next level; the others keep their checkpoints and may be resumed later. Half
way to its first level a trial competes, too, if the model expects it to end worse than the best.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import erfcx, log_ndtr, logsumexp, ndtri
from scipy.stats import qmc

from hpo.config.grid_points import grid_points
from hpo.config.search_space import Params, Space
from hpo.schedulers.base import Choice, PausingPolicy, TrialState
from hpo.schedulers.first_rung import FirstLevel, fidelities, levels
from hpo.surrogate.cost_model import EpochCosts
from hpo.surrogate.encoding import UnitCube
from hpo.surrogate.gp import NUM_ITERATIONS, CurveModel, FloatArray, Rows, Scale, on_one_thread

NUM_STARTUP_TRIALS: Final = 6
MAX_ROWS: Final = 250
NUM_IMAGINED: Final = 16  # outcomes of what runs. Source: docs/performance.md.
# Standard deviations that a trial is expected to end below the best by, to compete half way to its
# first level. Source: docs/performance.md.
BELOW_BEST: Final = 1.0
NUM_SOBOL: Final = 256
MAX_LISTED: Final = 512  # configurations of a space that are all weighed
NUM_BEST: Final = 5
NUM_AROUND: Final = 40
AROUND_SDS: Final = (0.03, 0.1, 0.25)
NUM_REFINED: Final = 8
NUM_AROUND_REFINED: Final = 16
REFINED_SDS: Final = ((0.03, 0.2), (0.01, 0.1))
QUANTILES: Final = ndtri((np.arange(64) + 0.5) / 64)  # of the standard normal distribution


@dataclass
class _Trial(TrialState):
    """Of a model's view: also where the trial lies."""

    point: FloatArray


class FreezeThaw(PausingPolicy[_Trial]):
    """The state of a search by curves, and its choices.

    What is chosen depends on the seed, the trials and their curves, so a search that is resumed
    goes on as it would have. Trial 0, the default configuration, is trained to its end at once.

    Args:
        space: That is searched.
        max_epochs: The length of a trial.
        maximise: Whether a larger value is better.
        seed: Of all that is drawn.
        first_level: The epoch at which trials compete first; None: a share of max_epochs.
        is_allowed: Says of a configuration whether it may be begun; None: any may.
    """

    def __init__(
        self,
        space: Space,
        max_epochs: int,
        *,
        maximise: bool,
        seed: int,
        first_level: int | None = None,
        is_allowed: Callable[[Params], bool] | None = None,
    ) -> None:
        super().__init__(max_epochs, levels(max_epochs, first_level), maximise=maximise)
        self._fidelities = fidelities(max_epochs, first_level)
        self._default_level = self._levels[0]
        self._cube = UnitCube(space)
        self._is_allowed, self._seed = is_allowed, seed
        self._listed: FloatArray | None = None
        if self._cube.num_points <= MAX_LISTED:
            self._listed = np.array([self._cube.encode(params) for params in grid_points(space)])
        self._at_end: dict[int, float] = {}
        self._hyperparameters: FloatArray | None = None
        self._scale: Scale | None = None
        self._costs: EpochCosts | None = None

    def set_first_levels(self, chosen: Sequence[FirstLevel]) -> None:
        """Each of the trials from a number on; those before it compete where they did."""
        for one in chosen:
            compete_at = tuple(level for level in self._fidelities if level >= one.epoch)
            self._levels_from[one.from_trial] = compete_at

    def weigh_costs(self, seconds: Mapping[int, float]) -> None:
        """From now on gains count by the GPU-second; given are those of an epoch, by trial."""
        self._costs = self._costs or EpochCosts(self._cube.is_categorical)
        self._costs.learn({n: trial.point for n, trial in self._trials.items()}, seconds)

    def started(self, number: int, params: Params) -> None:
        self._trials[number] = _Trial(self._cube.encode(params))

    def is_at_level(self, number: int) -> bool:
        return super().is_at_level(number) or self._is_half_way(number)

    def competes(self, number: int) -> bool:
        return super().is_at_level(number) or (
            self._is_half_way(number) and self._is_hopeless(number)
        )

    @property
    def model_state(self) -> list[float] | None:
        """What the next fit of the model begins from; None before the first."""
        return None if self._hyperparameters is None else self._hyperparameters.tolist()

    @model_state.setter
    def model_state(self, values: list[float] | None) -> None:
        self._hyperparameters = None if values is None else np.array(values)

    def least_promising(self, besides: int | None = None) -> int | None:
        """The paused trial that the model expects least of, as far as it has been asked."""
        paused = [n for n in self.paused_trials() if n not in (besides, self.last_one)]
        return min(paused, key=lambda n: self._at_end.get(n, math.inf), default=None)

    @on_one_thread
    def choose(
        self, paused: Sequence[int] | None = None, *, may_start: bool = True
    ) -> Choice | None:
        """What is best to run now, of these paused trials (None: of all) and new ones."""
        paused = self.paused_trials() if paused is None else paused
        may_start = may_start and not self.is_exhausted
        if not paused:
            return Choice(params=self.propose()) if may_start else None
        if may_start and self._is_starting_up:
            return Choice(params=self._startup_params())
        judge = self._judge()
        number, paused_score = judge.best_of(paused)
        if not may_start:
            return Choice(number)
        point, new_score = judge.best_new()
        if paused_score >= new_score:
            return Choice(number)
        return Choice(params=self._cube.decode(point))

    @property
    def is_exhausted(self) -> bool:
        """Whether every configuration of the space that may be begun has been tried."""
        if self._listed is None or (
            not self._is_allowed and len(self._trials) < len(self._listed)
        ):
            return False
        return not self._may_begin(self._listed).any()

    @on_one_thread
    def propose(self) -> Params:
        """The most promising configuration not tried; any, if all have been."""
        if self._is_starting_up:
            return self._startup_params()
        return self._cube.decode(self._judge().best_new()[0])

    @on_one_thread
    def expected_gains(self, paused: Sequence[int]) -> dict[int | None, float]:
        """How much better than the best each may be expected to end (None: a new one).

        In units of the objective. Empty while too little is known to tell: the default
        configuration has not come to its end, or others have not begun.
        """
        default = self._trials.get(0)
        if default is None or default.state == "running" or self._is_starting_up:
            return {}
        judge = self._judge(horizon=self._max_epochs)
        points: dict[int | None, FloatArray] = {n: self._trials[n].point for n in paused}
        if not self.is_exhausted:
            points[None] = judge.best_new()[0]
        if not points:
            return {}
        gains = judge.gains(np.array(list(points.values())))
        return dict(zip(points, gains.tolist(), strict=True))

    @property
    def _is_starting_up(self) -> bool:
        has_reports = any(t.curve for t in self._trials.values() if t.state != "failed")
        return len(self._trials) < NUM_STARTUP_TRIALS or not has_reports

    def _startup_params(self) -> Params:
        """The point of a sequence that covers the space, by the trial's number.

        Where configurations can repeat, the first that has not been tried.
        """
        if math.isfinite(self._cube.num_points):
            points = self._sobol(NUM_SOBOL)
            if self._listed is not None:
                points = np.concatenate([points, self._listed])
            untried = points[self._may_begin(points)]
            if len(untried):
                return self._cube.decode(untried[0])
        elif self._is_allowed is not None:
            points = self._sobol(NUM_SOBOL)
            allowed = points[self._allowed(points)]
            if len(self._trials) < len(allowed):
                return self._cube.decode(allowed[len(self._trials)])
        return self._cube.decode(self._sobol(1, skip=len(self._trials))[0])

    def _allowed(self, points: FloatArray) -> npt.NDArray[np.bool_]:
        """(N,) which points may be begun."""
        allow = self._is_allowed
        if allow is None:
            return np.ones(len(points), dtype=bool)
        return np.array([allow(self._cube.decode(point)) for point in points], dtype=bool)

    def _may_begin(self, points: FloatArray) -> npt.NDArray[np.bool_]:
        """(N,) which points are allowed, and not tried yet, in a space where they may repeat."""
        allowed = self._allowed(points)
        if math.isinf(self._cube.num_points):
            return allowed
        tried = {_key(trial.point) for trial in self._trials.values()}
        allowed &= np.array([_key(point) not in tried for point in points], dtype=bool)
        return allowed

    def _judge(self, horizon: int | None = None) -> "_Judge":
        rng = self._generator()
        model = self._imagining(self._model(rng), rng)
        known = {n: trial for n, trial in self._trials.items() if trial.state != "failed"}
        attainable = {n: trial for n, trial in known.items() if trial.state != "pruned"} or known
        points = np.array([trial.point for trial in attainable.values()])
        at_end, _ = model.predict(points, np.ones(len(points)), with_sd=False)
        self._at_end = dict(zip(attainable, at_end.mean(1).tolist(), strict=True))
        horizon = horizon or int(rng.integers(1, self._max_epochs + 1))
        return _Judge(self, model, points, at_end, horizon, rng)

    @on_one_thread
    def ranking(self) -> tuple[int, ...]:
        """Started trials, the one first whose best epoch is expected to be the best.

        That is its last one, or where a curve falls one that it has come to: what is delivered of
        a training is its best epoch.
        """
        numbers = [n for n, t in self._trials.items() if t.state != "failed" and t.curve]
        if len(numbers) < 2:
            return tuple(numbers)
        model = self._model(self._generator())
        last = self._max_epochs
        diverged = {n for n in numbers if math.isnan(self._trials[n].curve.get(last, 0.0))}
        at = [one for one in self._told() if one[0] not in diverged]
        at += [(number, last) for number in numbers]
        points = np.array([self._trials[number].point for number, _ in at])
        mean, _ = model.predict(points, self._times([epoch for _, epoch in at]), with_sd=False)
        best: dict[int, float] = {}
        for (number, _), value in zip(at, mean.tolist(), strict=True):
            best[number] = max(value, best.get(number, -math.inf))
        return tuple(sorted(numbers, key=lambda number: -best[number]))

    @on_one_thread
    def survey(self, num: int) -> list[tuple[Params, float]]:
        """Those of so many configurations all over the space that may be begun.

        Each with the value that it is expected to end at.
        """
        model = self._model(self._generator())
        points = self._sobol(num)
        points = points[self._allowed(points)]
        mean, _ = model.predict(points, np.ones(len(points)), with_sd=False)
        assert self._scale is not None
        ends = self._sign * self._scale.backward(mean)
        return list(zip(map(self._cube.decode, points), ends.tolist(), strict=True))

    def _is_half_way(self, number: int) -> bool:
        """Whether a running trial is half way to its first level."""
        is_there = 0 < self._trials[number].epoch == self._half_way(number)
        return is_there and not self._runs_on(number)

    def _half_way(self, number: int) -> int:
        """The epoch half way to a trial's first level; 0 where nothing can be told there."""
        first = self._levels_of(number)[0]
        return first // 2 if 4 <= first <= self._default_level else 0

    @on_one_thread
    def _is_hopeless(self, number: int) -> bool:
        """Whether a trial is expected to end well below the best, by the model as last fitted."""
        if self._is_starting_up:
            return False
        known = [t for t in self._trials.values() if t.state != "failed" and t.curve]
        model = self._model(self._generator(), num_iterations=0)
        points = np.array([self._trials[number].point, *(trial.point for trial in known)])
        mean, sd = model.predict(points, np.ones(len(points)))
        return bool(mean[0] + BELOW_BEST * sd[0] < mean[1:].max())

    def _generator(self) -> np.random.Generator:
        num_epochs = sum(len(trial.curve) for trial in self._trials.values())
        return np.random.default_rng([self._seed, len(self._trials), num_epochs])

    def _sobol(self, num: int, skip: int = 0, seed: int | None = None) -> FloatArray:
        sequence = qmc.Sobol(len(self._cube.names), seed=self._seed if seed is None else seed)
        if skip:
            sequence.fast_forward(skip)
        return self._cube.snap(sequence.random(num))

    def _times(self, epochs: Sequence[float] | FloatArray) -> FloatArray:
        if self._max_epochs == 1:
            return np.ones(len(epochs))
        times: FloatArray = np.log(np.asarray(epochs, float)) / math.log(self._max_epochs)
        return times

    def _model(self, rng: np.random.Generator, num_iterations: int = NUM_ITERATIONS) -> CurveModel:
        told = self._told()
        points = [self._trials[number].point for number, _ in told]
        epochs = [epoch for _, epoch in told]
        y = np.array([self._trials[number].curve[epoch] for number, epoch in told])
        y[np.isnan(y)] = np.nanmin(y) if not np.isnan(y).all() else 0.0
        self._scale = Scale(y)
        rows = Rows(np.array(points), self._times(epochs), self._scale.forward(y))
        if len(rows) > MAX_ROWS:
            order = np.argsort(-y, kind="stable")
            best, rest = order[: MAX_ROWS // 2], order[MAX_ROWS // 2 :]
            kept = np.sort(np.concatenate([best, rng.permutation(rest)[: MAX_ROWS - len(best)]]))
            rows = Rows(rows.points[kept], rows.times[kept], rows.values[kept])
        model = CurveModel(rows, self._cube.is_categorical, self._hyperparameters, num_iterations)
        if num_iterations:
            self._hyperparameters = model.hyperparameters
        return model

    def _told(self) -> list[tuple[int, int]]:
        """Trials and epochs that the model learns from: where they compete, and their last."""
        known = {n: trial for n, trial in self._trials.items() if trial.state != "failed"}
        halves = {self._half_way(number) for number in self._levels_from}
        compared_at = halves.union(*self._levels_from.values())
        first = self._first_to_tell(list(known.values()))
        return [
            (number, epoch)
            for number, trial in known.items()
            for epoch in sorted({e for e in compared_at if e < trial.epoch} | {trial.epoch})
            if epoch in trial.curve and epoch >= first
        ]

    def _first_to_tell(self, trials: Sequence[_Trial]) -> int:
        """The epoch from which on values count: what comes before a raised level misleads."""
        first = self._levels[0]
        is_known = any(trial.epoch >= first for trial in trials)
        return first if first > self._default_level and is_known else 0

    def _imagining(self, model: CurveModel, rng: np.random.Generator) -> CurveModel:
        """As if the running trials had come to their levels, in some ways that they may."""
        running = [(n, t) for n, t in self._trials.items() if t.state == "running"]
        points = np.array([t.point for _, t in running]).reshape(-1, len(self._cube.names))
        times = self._times([self._target(n, trial.epoch) for n, trial in running])
        num = NUM_IMAGINED if running else 1
        return model.imagining(points, times, rng.standard_normal((len(running), num)))


class _Judge:
    """One decision's view: the model with what runs imagined, the best of it, and a horizon.

    Source: Snoek, Larochelle and Adams, "Practical Bayesian Optimization of Machine Learning
    Algorithms", 2012, for the expectation over what runs.

    Args:
        search: What it decides for.
        model: Of all curves, with k draws of what runs.
        points: Of the trials that are or can be brought to their end.
        at_end: (n, k), their expected values after the last epoch.
        horizon: Epochs from now at which improvement counts; drawn anew for each decision.
        rng: Of what is drawn.
    """

    def __init__(
        self,
        search: FreezeThaw,
        model: CurveModel,
        points: FloatArray,
        at_end: FloatArray,
        horizon: int,
        rng: np.random.Generator,
    ) -> None:
        self._search, self._model, self._horizon, self._rng = search, model, horizon, rng
        self._incumbents = at_end.max(0)
        self._best_points = points[np.argsort(-at_end.mean(1), kind="stable")[:NUM_BEST]]

    def best_of(self, numbers: Sequence[int]) -> tuple[int, float]:
        """The most promising of some trials, and its score."""
        trials = [self._search._trials[n] for n in numbers]
        points = np.array([trial.point for trial in trials])
        scores = self._scores(points, np.array([trial.epoch for trial in trials]))
        best = int(scores.argmax())
        return numbers[best], float(scores[best])

    def best_new(self) -> tuple[FloatArray, float]:
        """The most promising point not tried, found by sampling and local refinement."""
        rng, best, listed = self._rng, self._best_points, self._search._listed
        sobol = self._search._sobol(NUM_SOBOL, seed=int(rng.integers(2**31)))
        if listed is not None:
            sobol = listed
        sds = rng.choice(AROUND_SDS, NUM_AROUND * len(best))
        points = np.concatenate([sobol, self._around(np.repeat(best, NUM_AROUND, 0), sds)])
        scores = self._scores_of_new(points)
        for low, high in REFINED_SDS:
            order = np.argsort(-scores, kind="stable")[:NUM_REFINED]
            centres = np.repeat(points[order], NUM_AROUND_REFINED, 0)
            around = self._around(centres, rng.uniform(low, high, len(centres)))
            points = np.concatenate([points[order], around])
            scores = np.concatenate([scores[order], self._scores_of_new(around)])
        top = int(scores.argmax())
        return points[top], float(scores[top])

    def gains(self, points: FloatArray) -> FloatArray:
        """Expected improvements at the end, in units of the objective."""
        scale = self._search._scale
        assert scale is not None
        mean, sd = self._model.predict(points, np.ones(len(points)))
        ends = scale.backward(mean[..., None] + sd[:, None, None] * QUANTILES)
        best = scale.backward(self._incumbents)[:, None]
        gains: FloatArray = np.maximum(ends - best, 0.0).mean((1, 2))
        return gains

    def _around(self, centres: FloatArray, sds: FloatArray) -> FloatArray:
        """Points near others: each coordinate moved with probability 1/2, choices redrawn."""
        rng, cube = self._rng, self._search._cube
        moved = rng.random(centres.shape) < 0.5
        moved[np.arange(len(centres)), rng.integers(centres.shape[1], size=len(centres))] = True
        noise = rng.standard_normal(centres.shape) * sds[:, None]
        near = np.clip(centres + noise, 0.0, 1.0)
        points = np.where(cube.is_categorical, rng.random(centres.shape), near)
        return cube.snap(np.where(moved, points, centres))

    def _scores_of_new(self, points: FloatArray) -> FloatArray:
        scores: FloatArray = np.where(
            self._search._may_begin(points), self._scores(points, 0), -np.inf
        )
        return scores

    def _scores(self, points: FloatArray, epochs: FloatArray | int) -> FloatArray:
        """Logarithms of the expected improvement of points after `horizon` epochs more.

        By the second that an epoch takes, where costs are weighed; up to a constant that is the
        same for all that a decision compares.
        """
        last = self._search._max_epochs
        ahead = np.broadcast_to(np.minimum(epochs + self._horizon, last), len(points))
        at = self._model.at(points)
        mean, sd = at.predict(self._search._times(ahead))
        at_end, _ = at.predict(np.ones(len(points)), with_sd=False)
        # Not what peaks early and then falls.
        mean = np.minimum(mean, at_end)
        each = log_expected_improvement(mean, sd[:, None], self._incumbents)
        gains: FloatArray = logsumexp(each, axis=1)
        costs = self._search._costs
        return gains if costs is None else gains - costs.log_seconds(points)


def _key(point: FloatArray) -> bytes:
    """The same for points that differ by rounding."""
    return point.round(9).tobytes()


def log_expected_improvement(
    mean: FloatArray, sd: FloatArray, incumbent: float | FloatArray
) -> FloatArray:
    """Log E[max(N(mean, sd) - incumbent, 0)], exact where the improvement is next to nothing.

    Source: Ament et al., "Unexpected Improvements to Expected Improvement", 2023.
    """
    z = (mean - incumbent) / sd
    log_phi = -(z**2) / 2 - math.log(2 * math.pi) / 2
    near = np.maximum(z, -1.0)
    density = np.exp(-(near**2) / 2) / math.sqrt(2 * math.pi)
    direct = np.log(density + near * np.exp(log_ndtr(near)))
    far = np.minimum(z, -1.0)
    ratio = np.log(-far * erfcx(-far / math.sqrt(2)) * math.sqrt(math.pi / 2))
    with np.errstate(divide="ignore"):
        tail = np.where(
            far > -1e6, np.log(-np.expm1(np.minimum(ratio, -1e-300))), -2 * np.log(-far)
        )
    improvement: FloatArray = np.log(sd) + np.where(z > -1, direct, log_phi + tail)
    return improvement
