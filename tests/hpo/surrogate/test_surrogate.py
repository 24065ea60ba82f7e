import math

import numpy as np
import pytest

from hpo.config.search_space import FloatParameter, Params, Space
from hpo.surrogate.candidates import Candidates
from hpo.surrogate.rows import Observations, ObservedTrial, Phase
from hpo.surrogate.surrogate import Surrogate

NAMES = ("rate", "decay", "drop", "mixup", "momentum", "smoothing")
SPACE: Space = {name: FloatParameter(type="float", low=0.0, high=1.0) for name in NAMES}
BEST: Params = dict(zip(NAMES, (0.4, 0.6, 0.3, 0.7, 0.5, 0.5), strict=True))
MAX_EPOCHS = 52
RUNGS = frozenset({4, 8, 15, 28, 52})
HOPELESS = 300


def curve(params: Params, last: int) -> dict[int, float]:
    """A curve; the best is at BEST, and neighbours differ by a ripple of up to 0.06."""
    values = np.array([float(params[name] or 0) for name in NAMES])
    best = np.array([float(BEST[name] or 0) for name in NAMES])
    end = 0.85 - 0.4 * ((values - best) ** 2).sum() + 0.06 * np.sin(40 * values).prod()
    return {epoch: float(end * (1 - np.exp(-epoch / 10))) for epoch in range(1, last + 1)}


def observed(num_complete: int = 40, num_pruned: int = 200, num_paused: int = 60) -> Observations:
    """A long search; trial HOPELESS lies at the optimum, but its curve is far below the others."""
    candidates, rng, trials = Candidates(SPACE, 0), np.random.default_rng(0), {}
    kinds = [(52, Phase.COMPLETE)] * num_complete + [(8, Phase.PRUNED)] * num_pruned
    kinds += [(8, Phase.PAUSED)] * num_paused
    for number, (last, phase) in enumerate(kinds):
        params: Params = dict(zip(NAMES, rng.random(6).tolist(), strict=True))
        point = candidates.cube.encode(params)
        trials[number] = ObservedTrial(point, curve(params, last), phase, 15)
    low = {epoch: 0.165 * epoch / 8 for epoch in range(1, 9)}
    trials[HOPELESS] = ObservedTrial(candidates.cube.encode(BEST), low, Phase.PAUSED, 15)
    return Observations(trials, MAX_EPOCHS, RUNGS)


@pytest.mark.parametrize("seed", range(6))
def test_a_paused_trial_is_judged_by_its_own_curve_however_many_others_there_are(
    seed: int,
) -> None:
    observations, surrogate = observed(), Surrogate(Candidates(SPACE, seed), seed)
    surrogate.fit(observations)
    paused = [n for n, t in observations.trials.items() if t.phase == Phase.PAUSED]
    scores = surrogate.acquisition(observations).scores_of(paused)
    assert max(scores, key=scores.__getitem__) != HOPELESS
    assert HOPELESS not in surrogate.ranking(observations)[:3]


@pytest.mark.parametrize("phase", [Phase.PRUNED, Phase.COMPLETE])
def test_a_ranking_looks_at_the_curve_of_a_trial_that_has_ended(phase: Phase) -> None:
    observations = observed()
    low = observations.trials[HOPELESS]
    trials = {**observations.trials, HOPELESS: ObservedTrial(low.point, low.curve, phase, 52)}
    for seed in range(4):
        surrogate = Surrogate(Candidates(SPACE, seed), seed)
        ranking = surrogate.ranking(Observations(trials, MAX_EPOCHS, RUNGS))
        assert HOPELESS not in ranking[:3]
        assert len(ranking) == len(set(ranking)) == 301


@pytest.mark.parametrize("seed", range(4))
def test_a_running_trial_is_called_hopeless_by_its_own_values(seed: int) -> None:
    surrogate, observations = Surrogate(Candidates(SPACE, seed), seed), observed()
    surrogate.fit(observations)
    point, found = observations.trials[HOPELESS].point, []
    for value in (-0.5, 0.3):
        running = ObservedTrial(point, {4: value}, Phase.RUNNING, 8)
        trials = {**observations.trials, HOPELESS: running}
        seen = Observations(trials, MAX_EPOCHS, RUNGS)
        found.append(surrogate.is_hopeless(seen, HOPELESS))
    assert found == [True, False]


@pytest.mark.parametrize("seed", range(6))
def test_a_diverged_training_counts_as_the_worst_of_all_whether_the_model_sees_that_one_or_not(
    seed: int,
) -> None:
    """The diverged trial began as the best, so its rows are among those that the model keeps."""
    surrogate, observations = Surrogate(Candidates(SPACE, seed), seed), observed(num_paused=0)
    point = observations.trials[0].point
    began = {epoch: 0.8 + epoch / 1000 for epoch in range(1, 16)}
    trials = {
        **observations.trials,
        HOPELESS: ObservedTrial(point, {**began, MAX_EPOCHS: math.nan}, Phase.PRUNED, MAX_EPOCHS),
        HOPELESS + 1: ObservedTrial(point, {}, Phase.RUNNING, MAX_EPOCHS),
        HOPELESS + 2: ObservedTrial(point + 0.2, {1: -3.0}, Phase.PRUNED, 4),
    }
    del trials[0]
    seen = Observations(trials, MAX_EPOCHS, RUNGS)
    surrogate.fit(seen)
    ends = surrogate.acquisition(seen).ends
    assert ends.pop(HOPELESS + 1) < min(ends.values()) - 2  # standard deviations


def test_only_a_fit_changes_what_later_answers_depend_on() -> None:
    few, more = observed(8, 4, 6), observed(10, 8, 9)
    surrogate = Surrogate(Candidates(SPACE, 0), 0)
    surrogate.fit(few)
    state = surrogate.state
    first = surrogate.acquisition(more).ends
    for _ in range(2):
        surrogate.ranking(more)
        surrogate.survey(more, 16)
        surrogate.is_hopeless(more, HOPELESS)
        surrogate.acquisition(more, horizon=5).best_new()
        assert surrogate.state == state
    assert surrogate.acquisition(more).ends == first
    surrogate.fit(more)
    assert surrogate.state != state


def test_a_decision_asked_for_again_is_the_same_also_by_a_search_that_is_resumed() -> None:
    observations = observed(8, 4, 6)
    surrogate = Surrogate(Candidates(SPACE, 0), 0)
    answers = []
    for _ in range(3):
        surrogate.fit(observations)
        answers.append(surrogate.acquisition(observations).best_new()[0].tolist())
    resumed = Surrogate(Candidates(SPACE, 0), 0)
    resumed.state = surrogate.state
    resumed.fit(observations)
    answers.append(resumed.acquisition(observations).best_new()[0].tolist())
    assert resumed.ranking(observations) == surrogate.ranking(observations)
    assert answers == answers[:1] * 4
    assert resumed.state == surrogate.state


@pytest.mark.parametrize("num_values", [1, 11, 13])
def test_the_state_of_another_space_or_version_is_not_gone_on_from(num_values: int) -> None:
    observations = observed(8, 4, 6)
    first, resumed = (Surrogate(Candidates(SPACE, 0), 0) for _ in range(2))
    first.fit(observations)
    assert first.state is not None
    assert len(first.state) == 12
    resumed.state = [0.5] * num_values
    assert resumed.state is None
    resumed.fit(observations)
    assert resumed.state == first.state


def test_a_new_point_gains_nothing_by_what_it_shares_with_no_other() -> None:
    few = observed(8, 4, 6)
    acquisition = Surrogate(Candidates(SPACE, 0), 0).acquisition(few)
    point, _ = acquisition.best_new()
    paused = acquisition.gains(point[None])
    assert 0 < acquisition.gains(point[None], are_new=True) < paused
