from collections import Counter

import pytest

from hpo.config.schema import SchedulerConfig
from hpo.schedulers.hyperband import Hyperband


def goes_on(
    rule: Hyperband, number: int, curve: dict[int, float], costs: tuple[float, ...] = ()
) -> bool:
    return rule.stops_at(number, curve, costs) is None


def hyperband(*, maximise: bool = True, max_epochs: int = 20) -> Hyperband:
    config = SchedulerConfig(name="hyperband", min_epochs=2, reduction_factor=3)
    return Hyperband(config, max_epochs, maximise=maximise)


@pytest.mark.parametrize(
    ("max_epochs", "expected"),
    [(20, ((2, 6, 18), (6, 18), (18,), ())), (6, ((2,), ())), (2, ((),))],
)
def test_brackets_begin_with_later_and_later_rungs(
    max_epochs: int, expected: tuple[tuple[int, ...], ...]
) -> None:
    assert hyperband(max_epochs=max_epochs).brackets == expected


def test_brackets_have_the_shares_of_hyperband_all_along() -> None:
    scheduler = hyperband()
    brackets = [scheduler.bracket_of(number) for number in range(98)]
    assert Counter(brackets[:49]) == Counter(brackets[49:]) == {0: 27, 1: 12, 2: 6, 3: 4}
    assert set(brackets[:13]) == {0, 1, 2, 3}


def test_brackets_compare_by_several_objectives() -> None:
    scheduler = hyperband()
    first, second, third, fourth = members(scheduler, 0)[:4]
    assert goes_on(scheduler, 0, {2: 0.9}, (9.0,))
    assert goes_on(scheduler, first, {2: 0.8}, (5.0,))
    assert not goes_on(scheduler, second, {2: 0.7}, (6.0,))
    assert goes_on(scheduler, third, {2: 0.1}, (1.0,))  # the worst val_top1, but the lowest cost
    assert not goes_on(scheduler, fourth, {2: 0.2}, (2.0,))


def members(scheduler: Hyperband, bracket: int) -> list[int]:
    return [number for number in range(1, 60) if scheduler.bracket_of(number) == bracket]


def test_a_trial_is_compared_with_those_of_its_bracket() -> None:
    scheduler = hyperband()
    for number in members(scheduler, 0)[:6]:
        goes_on(scheduler, number, {2: 0.9, 6: 0.9})
    first, second, third = members(scheduler, 1)[:3]
    assert goes_on(scheduler, first, {2: 0.1, 6: 0.4})
    assert goes_on(scheduler, second, {2: 0.1, 6: 0.3})
    assert not goes_on(scheduler, third, {2: 0.1, 6: 0.2})
    last = members(scheduler, 3)[0]
    assert goes_on(scheduler, last, dict.fromkeys(range(1, 20), 0.0))


def test_the_default_is_compared_with_in_every_bracket_and_never_stopped() -> None:
    scheduler = hyperband(maximise=False)
    assert goes_on(scheduler, 0, {2: 0.2, 6: 0.2})
    for bracket, epoch in ((0, 2), (1, 6)):
        first, second = members(scheduler, bracket)[:2]
        assert goes_on(scheduler, first, {epoch: 0.3})
        assert not goes_on(scheduler, second, {epoch: 0.25})
    assert goes_on(scheduler, 0, {2: 0.2, 6: 0.2, 18: 9.0})
