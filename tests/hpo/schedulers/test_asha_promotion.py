import math

import pytest

from hpo.config.schema import SchedulerConfig
from hpo.schedulers.asha import Promotion
from hpo.schedulers.base import Choice, Resume, Start, Wait


def promotion(*, maximise: bool = True, max_epochs: int = 20) -> Promotion:
    """A Promotion scheduler with rungs at 2, 6 and 18 of 20 epochs."""
    config = SchedulerConfig(name="asha_promotion", min_epochs=2, reduction_factor=3)
    return Promotion(config, max_epochs, maximise=maximise)


def choice(
    policy: Promotion, paused: tuple[int, ...] | None = None, *, may_start: bool = True
) -> Choice:
    """The scheduler's choice among the `paused` trials; None stands for all paused trials."""
    return policy.next(policy.paused_trials() if paused is None else paused, may_start=may_start)


def paused_at_first_rung(policy: Promotion, values: list[float]) -> None:
    """Trains trials 1, 2, ... to the first rung, with these values there, and pauses them."""
    for number, value in enumerate(values, 1):
        policy.started(number, {})
        policy.reported(number, {1: value - 0.01, 2: value})
        assert policy.is_at_rung(number)
        policy.paused(number)


def go_on(policy: Promotion, number: int, values: dict[int, float]) -> None:
    policy.resumed(number)
    policy.reported(number, values)
    policy.paused(number)


def test_a_new_trial_starts_while_none_is_to_be_promoted() -> None:
    policy = promotion()
    assert choice(policy) == Start()
    paused_at_first_rung(policy, [0.5, 0.6])
    assert choice(policy) == Start()


@pytest.mark.parametrize("maximise", [True, False])
def test_the_best_third_of_a_rung_is_promoted(maximise: bool) -> None:
    policy = promotion(maximise=maximise)
    values = [0.5, 0.6, 0.4, 0.3, 0.2, 0.7]
    paused_at_first_rung(policy, values)
    order = [6, 2] if maximise else [5, 4]
    for number in order:
        assert choice(policy) == Resume(number)
        policy.resumed(number)
    assert choice(policy) == Start()


def test_the_highest_rung_comes_first() -> None:
    policy = promotion()
    paused_at_first_rung(policy, [0.5, 0.6, 0.4, 0.3, 0.2, 0.7, *[0.1] * 6])
    for number, value in ((6, 0.7), (2, 0.8), (1, 0.6)):
        go_on(policy, number, {6: value})
    for number in (2, 3):
        assert choice(policy) == Resume(number)
        policy.resumed(number)
    assert choice(policy) == Start()


def test_a_trial_that_failed_still_counts_where_it_was() -> None:
    policy = promotion()
    paused_at_first_rung(policy, [0.5, 0.6, 0.4])
    policy.resumed(2)
    policy.failed(2)
    assert choice(policy) == Start()
    assert policy.ranking() == (1, 3)


def test_the_default_counts_but_is_never_paused() -> None:
    policy = promotion()
    policy.started(0, {})
    policy.reported(0, {1: 0.9, 2: 0.9})
    assert not policy.is_at_rung(0)
    paused_at_first_rung(policy, [0.5, 0.6])
    assert choice(policy) == Start()  # the best third is the default itself
    for number, value in ((3, 0.85), (4, 0.1), (5, 0.1)):
        assert choice(policy) == Start()
        policy.started(number, {})
        policy.reported(number, {2: value})
        policy.paused(number)
    assert choice(policy) == Resume(3)


def test_a_trial_that_diverged_is_at_no_later_rung() -> None:
    policy = promotion()
    paused_at_first_rung(policy, [0.5, 0.6, 0.7])
    policy.resumed(2)
    policy.reported(2, {3: math.nan})
    policy.pruned(2, diverged=True)
    go_on(policy, 3, {6: 0.7})
    assert choice(policy) == Start()  # trial 3 is alone at its rung
    assert policy.ranking() == (3, 2, 1)


def test_a_trial_that_stopped_itself_counts_at_the_later_rungs() -> None:
    policy = promotion()
    paused_at_first_rung(policy, [0.5, 0.6, 0.7])
    for number, value in ((1, 0.9), (2, 0.65)):
        policy.resumed(number)
        policy.reported(number, {3: value})
        policy.completed(number, value)
    go_on(policy, 3, {6: 0.7})
    assert choice(policy) == Start()  # trial 1 is the best third
    assert policy.ranking() == (1, 2, 3)
    for number in (4, 5, 6):
        policy.started(number, {})
        policy.reported(number, {2: 0.1, 6: 0.1})
        policy.paused(number)
    assert choice(policy) == Resume(3)  # the best third is trials 1 and 3


def test_at_last_the_best_of_the_highest_rung_is_left() -> None:
    policy = promotion()
    paused_at_first_rung(policy, [0.5, 0.6, 0.7])
    go_on(policy, 3, {6: 0.7})
    assert choice(policy, may_start=False) == Wait()
    assert policy.may_be_last()[0] == 3


def test_only_what_is_given_to_choose_from_is_promoted() -> None:
    policy = promotion()
    paused_at_first_rung(policy, [0.5, 0.6, 0.7])
    assert choice(policy, (3,)) == Resume(3)
    assert choice(policy, (1, 2)) == Start()
    assert choice(policy, (1, 2), may_start=False) == Wait()


def test_at_last_the_best_is_one_that_can_be_trained() -> None:
    policy = promotion()
    policy.started(0, {})  # the default runs all the time
    paused_at_first_rung(policy, [0.5, 0.6, 0.7])
    policy.resumed(3)
    policy.reported(3, {6: 0.7, 7: math.nan})
    policy.pruned(3, diverged=True)
    assert policy.may_be_last()[0] == 2


def test_at_last_no_trial_is_trained_that_the_default_was_better_than() -> None:
    policy = promotion()
    policy.started(0, {})
    policy.reported(0, {2: 0.8, 6: 0.9, 18: 0.9, 20: 0.9})
    policy.completed(0, 0.9)
    paused_at_first_rung(policy, [0.7])
    assert policy.may_be_last()[0] == 0


def test_at_last_a_trial_is_trained_that_was_better_than_the_default_at_its_rung() -> None:
    policy = promotion()
    policy.started(0, {})
    policy.reported(0, {2: 0.8, 6: 0.9, 18: 0.9, 20: 0.9})
    policy.completed(0, 0.9)
    paused_at_first_rung(policy, [0.85])
    assert policy.may_be_last()[0] == 1


def test_the_last_of_the_lowest_rung_is_given_up_first() -> None:
    policy = promotion()
    assert policy.least_promising() is None
    paused_at_first_rung(policy, [0.5, 0.3, 0.7])
    go_on(policy, 3, {6: 0.1})
    assert policy.least_promising() == 2
    assert policy.least_promising(besides=2) == 1
    policy.last_one = 1
    assert policy.least_promising(besides=2) == 3


def test_a_search_shorter_than_a_rung_trains_each_trial_to_its_end() -> None:
    policy = promotion(max_epochs=2)
    policy.started(1, {})
    policy.reported(1, {1: 0.5})
    assert not policy.is_at_rung(1)
    assert choice(policy) == Start()


def test_a_default_that_failed_is_not_brought_to_its_end() -> None:
    policy = promotion()
    policy.started(0, {})
    assert policy.may_be_last() == (0,)
    policy.failed(0)
    assert policy.may_be_last() == ()
