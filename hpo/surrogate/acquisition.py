"""The acquisition function: log expected improvement of trials on the incumbents."""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from scipy.special import erfcx, log_ndtr, logsumexp, ndtri

from hpo.surrogate.arrays import FloatArray
from hpo.surrogate.candidates import MAX_LISTED, NUM_SOBOL, Candidates
from hpo.surrogate.cost_model import EpochCosts
from hpo.surrogate.gp import CurveModel
from hpo.surrogate.output_warp import OutputWarp
from hpo.surrogate.rows import Observations, Phase

NUM_IMAGINED: Final = 16  # drawn outcomes of the running trials. Source: docs/performance.md.
# New points are drawn around the trials with the best expected ends, NUM_AROUND around each. Their
# steps' standard deviations are lengths in the unit cube.
NUM_BEST: Final = 5
NUM_AROUND: Final = 40
AROUND_SDS: Final = (0.03, 0.1, 0.25)
# Then each round draws NUM_AROUND_REFINED points around the best NUM_REFINED so far, with steps of
# standard deviations between the round's two.
NUM_REFINED: Final = 8
NUM_AROUND_REFINED: Final = 16
REFINED_SDS: Final = ((0.03, 0.2), (0.01, 0.1))
QUANTILES: Final = ndtri((np.arange(64) + 0.5) / 64)  # of the standard normal distribution


class Acquisition:
    """Scores paused trials and new points by their expected improvement on the incumbents.

    The running trials' values at their next stops and at their ends are drawn k times from the
    posterior. Each draw has its own incumbent: the best expected end of the trials that are
    complete or may go on. A new point is scored without what it would share with no other one:
    that is the luck of one training, and no reason to begin it. An instance serves one decision.

    Source: Snoek, Larochelle and Adams, "Practical Bayesian Optimization of Machine Learning
    Algorithms", 2012, for the expectation over running trials.

    Args:
        observations: All that the search has observed.
        model: The fitted posterior.
        warp: The warp of the values that the model was fitted to.
        candidates: The points that may be started.
        rng: Draws the outcomes, the horizon and the points.
        horizon: Epochs from now at which improvement counts; None: drawn from 1..max_epochs.
        costs: Predicts an epoch's seconds, which divide improvements; None: all cost the same.

    Attributes:
        ends: Expected warped value at the end of training, by number, for the trials that are
            complete or may go on.
    """

    def __init__(
        self,
        observations: Observations,
        model: CurveModel,
        warp: OutputWarp,
        candidates: Candidates,
        rng: np.random.Generator,
        *,
        horizon: int | None = None,
        costs: EpochCosts | None = None,
    ) -> None:
        self._observations, self._warp, self._candidates = observations, warp, candidates
        self._tried = [trial.point for trial in observations.trials.values()]
        self._rng, self._costs = rng, costs
        self._model = _imagining(model, observations, len(candidates.cube.names), rng)
        known = observations.known
        able = {n: t for n, t in known.items() if t.phase != Phase.PRUNED} or known
        points = np.array([trial.point for trial in able.values()])
        ends, _ = self._model.predict(points, np.ones(len(points)), with_sd=False)
        self.ends: dict[int, float] = dict(zip(able, ends.mean(1).tolist(), strict=True))
        self._horizon = horizon or int(rng.integers(1, observations.max_epochs + 1))
        self._incumbents = ends.max(0)
        self._best_points = points[np.argsort(-ends.mean(1), kind="stable")[:NUM_BEST]]

    def scores_of(self, numbers: Sequence[int]) -> dict[int, float]:
        """The scores of trials by number; the most promising one's is the highest."""
        trials = [self._observations.trials[n] for n in numbers]
        points = np.array([trial.point for trial in trials])
        scores = self._scores(points, np.array([trial.epoch for trial in trials]))
        return dict(zip(numbers, scores.tolist(), strict=True))

    def best_new(self) -> tuple[FloatArray, float]:
        """The most promising untried point (d,), by sampling and refinement, and its score.

        If no untried point is found, the point of the best trial, with a score of minus infinity.
        """
        rng, best, candidates = self._rng, self._best_points, self._candidates
        spread = candidates.sobol(NUM_SOBOL, seed=int(rng.integers(2**31)))
        if candidates.listed is not None:
            spread = candidates.listed
        sds = rng.choice(AROUND_SDS, NUM_AROUND * len(best))
        near = candidates.around(np.repeat(best, NUM_AROUND, 0), sds, rng)
        points = np.concatenate([spread, near])
        scores = self._scores_of_new(points)
        for low, high in REFINED_SDS:
            order = np.argsort(-scores, kind="stable")[:NUM_REFINED]
            centres = np.repeat(points[order], NUM_AROUND_REFINED, 0)
            near = candidates.around(centres, rng.uniform(low, high, len(centres)), rng)
            points = np.concatenate([points[order], near])
            scores = np.concatenate([scores[order], self._scores_of_new(near)])
        if np.isneginf(scores).all():
            untried = candidates.untried(self._tried)
            if not len(untried):
                return best[0], -math.inf
            points = untried[rng.permutation(len(untried))[:MAX_LISTED]]
            scores = self._scores(points, 0)
        top = int(scores.argmax())
        return points[top], float(scores[top])

    def gains(self, points: FloatArray, *, are_new: bool = False) -> FloatArray:
        """(n,) expected improvements of points (n, d) at their ends, in the objective's unit."""
        at = self._model.at(points)
        mean, sd = at.predict(np.ones(len(points)), with_own=not are_new)
        ends = self._warp.backward(mean[..., None] + sd[:, None, None] * QUANTILES)
        best = self._warp.backward(self._incumbents)[:, None]
        gains: FloatArray = np.maximum(ends - best, 0.0).mean((1, 2))
        return gains

    def _scores_of_new(self, points: FloatArray) -> FloatArray:
        """(n,) scores of points (n, d); minus infinity where a point may not be started."""
        may_begin = self._candidates.may_begin(points, self._tried)
        scores: FloatArray = np.where(may_begin, self._scores(points, 0), -np.inf)
        return scores

    def _scores(self, points: FloatArray, epochs: FloatArray | int) -> FloatArray:
        """(n,) log expected improvements at the horizon, of points (n, d) trained to `epochs`.

        The improvements are divided by an epoch's seconds where costs are weighed. The scores lack
        a constant that is the same for all points of a decision.
        """
        last = self._observations.max_epochs
        ahead = np.broadcast_to(np.minimum(epochs + self._horizon, last), len(points))
        at, are_new = self._model.at(points), not np.any(epochs)
        mean, sd = at.predict(self._observations.times(ahead), with_own=not are_new)
        at_end, _ = at.predict(np.ones(len(points)), with_sd=False)
        # A curve that is expected to peak early and then fall counts by its end.
        mean = np.minimum(mean, at_end)
        each = log_expected_improvement(mean, sd[:, None], self._incumbents)
        gains: FloatArray = logsumexp(each, axis=1)
        return gains if self._costs is None else gains - self._costs.log_seconds(points)


def _imagining(
    model: CurveModel, observations: Observations, num_coordinates: int, rng: np.random.Generator
) -> CurveModel:
    """The posterior with the running trials' values drawn k times, at next stops and ends."""
    running = [t for t in observations.trials.values() if t.phase == Phase.RUNNING]
    last = observations.max_epochs
    at = [(trial, trial.next_stop) for trial in running]
    # Without its end, what is the trial's own would be open, and points beside it worth a try.
    at += [(trial, last) for trial in running if trial.next_stop < last]
    points = np.array([trial.point for trial, _ in at]).reshape(-1, num_coordinates)
    times = observations.times([epoch for _, epoch in at])
    num = NUM_IMAGINED if running else 1
    return model.imagining(points, times, rng.standard_normal((len(at), num)))


def log_expected_improvement(
    mean: FloatArray, sd: FloatArray, incumbent: float | FloatArray
) -> FloatArray:
    """Log E[max(N(mean, sd) - incumbent, 0)], exact even where the improvement is tiny.

    The arguments broadcast against each other; the result has their common shape.

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
