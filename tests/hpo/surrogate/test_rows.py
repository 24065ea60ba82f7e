import math

import numpy as np
import pytest

from hpo.surrogate.rows import Observations, ObservedTrial, Phase, log_times, thinned

RUNGS = (4, 8, 15, 28, 52)


def trial(last: int, phase: Phase, value: float = 0.5) -> ObservedTrial:
    curve = {epoch: value + epoch / 1000 for epoch in range(1, last + 1)}
    return ObservedTrial(np.array([value]), curve, phase, 52)


def search(
    num_complete: int = 40, num_pruned: int = 200, num_paused: int = 60, num_running: int = 8
) -> Observations:
    """Observations whose paused and running trials have few epochs and the lowest values."""
    rng = np.random.default_rng(0)
    trials = [trial(52, Phase.COMPLETE, 0.8 + 0.1 * rng.random()) for _ in range(num_complete)]
    trials += [trial(15, Phase.PRUNED, 0.5 + 0.2 * rng.random()) for _ in range(num_pruned)]
    trials += [trial(8, Phase.PAUSED, 0.1) for _ in range(num_paused)]
    trials += [trial(4, Phase.RUNNING, 0.1) for _ in range(num_running)]
    return Observations(dict(enumerate(trials)), 52, frozenset(RUNGS))


def kept_of(observations: Observations, max_rows: int, seed: int = 0) -> list[tuple[int, int]]:
    return thinned(observations, max_rows, np.random.default_rng(seed))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("max_rows", [140, 250])
def test_every_candidates_last_row_stays(max_rows: int, seed: int) -> None:
    observations = search()
    kept = kept_of(observations, max_rows, seed)
    assert {(n, 8) for n in range(240, 300)} | {(n, 4) for n in range(300, 308)} <= set(kept)
    assert len(kept) == max_rows
    assert len(set(kept)) == len(kept)
    assert kept == sorted(kept)


def test_of_other_trials_all_rows_stay_or_none_but_of_the_last_two_that_fit() -> None:
    observations = search()
    kept = kept_of(observations, 250)
    all_rows = observations.seen
    partly = [
        number
        for number in range(240)
        if 0 < sum(n == number for n, _ in kept) < sum(n == number for n, _ in all_rows)
    ]
    assert len(partly) <= 2
    best = sorted(range(40), key=lambda n: -observations.trials[n].curve[52])
    assert {(number, epoch) for number in best[:10] for epoch in RUNGS} <= set(kept)


def test_many_candidates_leave_half_of_the_room_to_others() -> None:
    kept = kept_of(search(num_paused=64, num_running=300), 250)
    assert sum(number >= 240 for number, _ in kept) >= 364
    assert 115 <= sum(number < 240 for number, _ in kept) <= 125


def test_nothing_is_left_out_where_all_rows_fit() -> None:
    observations = search(4, 4, 4, 2)
    assert kept_of(observations, 250) == observations.seen


def test_a_trial_asked_about_keeps_its_last_row_whatever_it_is() -> None:
    observations = search()
    for seed in range(5):
        rng = np.random.default_rng(seed)
        kept = thinned(observations, 100, rng, always=frozenset({100, 239}))
        assert {(100, 15), (239, 15)} <= set(kept)


def test_a_diverged_training_has_the_worst_value() -> None:
    broken = ObservedTrial(np.array([0.5]), {4: 0.1, 52: math.nan}, Phase.PRUNED, 52)
    seen = Observations({0: trial(4, Phase.COMPLETE), 1: broken}, 52, frozenset(RUNGS))
    assert seen.values() == {(0, 4): 0.504, (1, 4): 0.1, (1, 52): 0.1}
    alone = Observations(
        {1: ObservedTrial(np.array([0.5]), {52: math.nan}, Phase.PRUNED, 52)}, 52, frozenset(RUNGS)
    )
    assert alone.values() == {(1, 52): 0.0}


@pytest.mark.parametrize(("max_epochs", "expected"), [(16, [0, 0.5, 1]), (1, [1, 1, 1])])
def test_times_are_logarithms_of_epochs(max_epochs: int, expected: list[float]) -> None:
    assert log_times([1, 4, 16], max_epochs) == pytest.approx(expected)
