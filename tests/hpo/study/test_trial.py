from dataclasses import replace

import pytest

from hpo.study.trial import TrialSummary, num_counted


def trial(number: int, state: str, curve: dict[int, float], missed: float) -> TrialSummary:
    return TrialSummary(number, state, None, {}, curve, {}, {"latency_ms <= 5": missed})


@pytest.mark.parametrize(
    ("state", "curve", "missed", "outcome"),
    [
        ("PRUNED", {}, 0.5, "INFEASIBLE"),
        ("PRUNED", {1: 0.5}, 0.5, "PRUNED"),
        ("PRUNED", {}, 0.0, "PRUNED"),
        ("FAIL", {}, 0.5, "FAIL"),
        ("COMPLETE", {1: 0.5}, 0.5, "COMPLETE"),
    ],
)
def test_only_what_was_not_trained_is_infeasible(
    state: str, curve: dict[int, float], missed: float, outcome: str
) -> None:
    assert trial(0, state, curve, missed).outcome == outcome


def test_ten_that_were_not_trained_count_as_one_trial() -> None:
    trials = [trial(i, "PRUNED", {}, 0.5) for i in range(25)]
    assert num_counted(trials) == 2
    assert num_counted([*trials, trial(25, "PRUNED", {1: 0.5}, 0.0)]) == 3


def test_a_trial_that_stopped_itself_has_its_value_at_the_end() -> None:
    stopped = replace(trial(0, "COMPLETE", {1: 0.5, 2: 0.4}, 0.0), value=0.5)
    assert stopped.curve_to(4) == {1: 0.5, 2: 0.4, 4: 0.5}
    assert replace(stopped, curve={4: 0.25}).curve_to(4) == {4: 0.25}
    assert trial(0, "PRUNED", {1: 0.5}, 0.0).curve_to(4) == {1: 0.5}
