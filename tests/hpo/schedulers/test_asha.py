import math

import pytest

from hpo.config.schema import SchedulerConfig
from hpo.schedulers.asha import AsynchronousHalving


def goes_on(
    rule: AsynchronousHalving, number: int, curve: dict[int, float], costs: tuple[float, ...] = ()
) -> bool:
    return rule.stops_at(number, curve, costs) is None


def halving(**config: object) -> AsynchronousHalving:
    values = {"name": "asha", "min_epochs": 2, "reduction_factor": 3} | config
    return AsynchronousHalving(SchedulerConfig.model_validate(values), 20, maximise=True)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, (2, 6, 18)),
        ({"min_epochs": 1, "reduction_factor": 2}, (1, 2, 4, 8, 16)),
        ({"min_epochs": 20}, ()),
    ],
)
def test_rungs_lie_at_powers_of_the_factor(config: dict, expected: tuple[int, ...]) -> None:
    assert halving(**config).rung_epochs == expected


def at_rung(scheduler: AsynchronousHalving, values: list[float]) -> list[bool]:
    """Whether trials 1, 2, ..., which reach the first rung with these values, go on."""
    return [goes_on(scheduler, i, {2: value}) for i, value in enumerate(values, 1)]


def test_a_trial_goes_on_among_the_best_third() -> None:
    assert at_rung(halving(), [0.5, 0.1, 0.2, 0.6, 0.4, 0.3, 0.55]) == [
        True, True, False, True, False, False, True,
    ]  # fmt: skip


def test_between_rungs_every_trial_goes_on() -> None:
    scheduler = halving()
    at_rung(scheduler, [0.5, 0.6, 0.7])
    assert goes_on(scheduler, 9, {1: 0.0})
    assert goes_on(scheduler, 9, {1: 0.0, 2: 0.9})
    assert goes_on(scheduler, 9, {1: 0.0, 2: 0.9, 3: 0.0})


def test_the_best_value_so_far_counts() -> None:
    scheduler = halving()
    at_rung(scheduler, [0.5, 0.6, 0.7])
    assert goes_on(scheduler, 9, {1: 0.9, 2: 0.0})


def test_the_default_is_never_stopped_but_counts() -> None:
    scheduler = halving()
    assert at_rung(scheduler, [0.5, 0.6]) == [True, True]
    assert goes_on(scheduler, 0, {1: 0.0, 2: 0.1})
    assert not goes_on(scheduler, 5, {1: 0.0, 2: 0.2})


def test_loss_is_to_fall() -> None:
    config = SchedulerConfig(name="asha", min_epochs=2, reduction_factor=3)
    scheduler = AsynchronousHalving(config, 20, maximise=False)
    assert at_rung(scheduler, [0.5, 0.6, 0.7, 0.4]) == [True, True, False, True]


def test_a_curve_of_nan_is_the_worst() -> None:
    assert at_rung(halving(), [0.0, 0.1, math.nan]) == [True, True, False]


def test_restored_rungs_decide_alike() -> None:
    values = [0.5, 0.1, 0.2, 0.6, 0.4]
    whole, restored = halving(), halving()
    at_rung(whole, values)
    for i, value in enumerate(values, 1):
        goes_on(restored, i, {1: 0.0, 2: value, 3: 1.0})  # epoch 3 is not the rung's
    for value in (0.3, 0.55, 0.45):
        assert goes_on(whole, 9, {2: value}) == goes_on(restored, 9, {2: value})


def test_epochs_told_together_are_judged_at_every_rung_among_them() -> None:
    scheduler = halving(min_epochs=1, reduction_factor=2)
    for number in (1, 2):
        assert goes_on(scheduler, number, {1: 0.5, 2: 0.6, 3: 0.7})
    assert not goes_on(scheduler, 3, {1: 0.5, 2: 0.1, 3: 0.9})
    assert goes_on(scheduler, 3, {1: 0.5, 2: 0.1, 3: 0.9})  # trial 3 was judged already


def test_a_trial_that_did_not_reach_a_rung_is_not_in_it() -> None:
    scheduler = halving()
    for i in range(3, 6):
        assert goes_on(scheduler, i, {1: 0.9})
    assert goes_on(scheduler, 6, {})
    assert at_rung(scheduler, [0.1, 0.1]) == [True, True]


def test_with_several_objectives_a_trial_goes_on_by_its_front() -> None:
    scheduler = halving()
    trials = [(0.9, 9.0), (0.8, 2.0), (0.5, 1.0), (0.7, 3.0), (0.95, 9.5), (0.4, 0.5)]
    decided = [
        goes_on(scheduler, i, {2: value}, (cost,)) for i, (value, cost) in enumerate(trials)
    ]
    # Trial 2 is as good as the others, but one of three goes on; 3 is worse than 1 in every way.
    assert decided == [True, True, False, False, True, True]


def test_a_curve_of_nan_is_the_worst_however_little_its_trial_costs() -> None:
    scheduler = halving()
    for number in (1, 2, 3):
        goes_on(scheduler, number, {2: 0.5}, (1.0,))
    assert not goes_on(scheduler, 4, {2: math.nan}, (0.1,))


def test_restored_rungs_of_several_objectives_decide_alike() -> None:
    trials = [(0.9, 9.0), (0.8, 2.0), (0.5, 1.0), (0.7, 3.0)]
    whole, restored = halving(), halving()
    for i, (value, cost) in enumerate(trials, 1):
        goes_on(whole, i, {2: value}, (cost,))
        goes_on(restored, i, {1: 0.0, 2: value, 3: 1.0}, (cost,))
    for value, cost in ((0.85, 4.0), (0.6, 0.5), (0.2, 8.0)):
        assert goes_on(whole, 9, {2: value}, (cost,)) == goes_on(restored, 9, {2: value}, (cost,))


def test_it_says_at_which_rung_a_trial_fell_behind() -> None:
    scheduler = halving()
    for number, value in enumerate([0.5, 0.6, 0.7], 1):
        scheduler.stops_at(number, dict.fromkeys(range(1, 8), value))
    assert scheduler.stops_at(4, dict.fromkeys(range(1, 6), 0.1)) == 2  # told after a crash
