"""Tests of the decisions that a stopping rule gives to the engine."""

import math

import pytest

from hpo.config.schema import SchedulerConfig
from hpo.schedulers.asha import AsynchronousHalving
from hpo.schedulers.base import Decision, Start, Wait
from hpo.schedulers.median import MIN_OTHERS, MedianStopping
from hpo.schedulers.stopping import StoppingScheduler

CONTINUE, STOP = Decision.CONTINUE, Decision.STOP


def halving() -> StoppingScheduler:
    """A stopping rule with rungs at 2 and 4 of 8 epochs, where the better half goes on."""
    config = SchedulerConfig(name="asha", min_epochs=2, reduction_factor=2)
    rule = AsynchronousHalving(config, 8, maximise=True)
    return StoppingScheduler(rule, 8, 2, lambda params: ())


def decided(scheduler: StoppingScheduler, number: int, curve: dict[int, float]) -> Decision:
    scheduler.started(number, {})
    scheduler.reported(number, curve)
    return scheduler.on_epoch(number)


def test_a_free_slot_starts_a_new_trial_if_it_may() -> None:
    assert halving().next((), may_start=True) == Start()
    assert halving().next((), may_start=False) == Wait()


def test_a_trial_that_stopped_itself_is_compared_with_at_later_rungs() -> None:
    scheduler = halving()
    decided(scheduler, 1, {1: 0.5, 2: 0.6, 3: 0.7})
    scheduler.completed(1, 0.7)
    assert decided(scheduler, 2, dict.fromkeys(range(1, 5), 0.65)) == STOP
    assert decided(scheduler, 3, dict.fromkeys(range(1, 5), 0.75)) == CONTINUE


def test_a_trial_that_diverged_or_was_stopped_is_not() -> None:
    scheduler = halving()
    decided(scheduler, 1, {1: 0.5, 2: 0.6, 3: math.nan})
    scheduler.pruned(1, diverged=True)
    assert decided(scheduler, 2, {1: 0.6, 2: 0.6, 4: 0.1}) == CONTINUE  # alone at its rung


def test_the_median_rule_averages_a_trial_that_stopped_itself_on() -> None:
    rule = MedianStopping(SchedulerConfig(name="median", min_epochs=1), maximise=True)
    scheduler = StoppingScheduler(rule, 8, 1, lambda params: ())
    for number in range(1, 1 + MIN_OTHERS):
        decided(scheduler, number, {1: 0.9})
        scheduler.completed(number, 0.9)
    scheduler.started(9, {})
    for epoch, decision in ((6, STOP), (8, STOP)):
        scheduler.reported(9, {epoch: 0.5})
        assert scheduler.on_epoch(9) == decision


@pytest.mark.parametrize(("epoch", "was_judged"), [(2, False), (3, True)])
def test_a_trial_that_a_crash_interrupted_is_judged_at_its_last_epoch(
    epoch: int, was_judged: bool
) -> None:
    scheduler = halving()
    decided(scheduler, 1, {2: 0.9})
    scheduler.started(2, {})
    scheduler.reported(2, dict.fromkeys(range(1, epoch + 1), 0.1))
    assert scheduler.interrupted(2)
    assert scheduler.on_epoch(2) == (CONTINUE if was_judged else STOP)


def test_the_default_is_trained_to_its_end_and_others_to_the_first_rung() -> None:
    scheduler = halving()
    assert [scheduler.next_stop(0, 1), scheduler.next_stop(1, 0)] == [8, 2]
    assert [scheduler.next_stop(1, 1), scheduler.next_stop(1, 5)] == [2, 6]


def test_a_trial_is_stopped_at_the_rung_where_it_fell_behind_not_where_it_has_come_to() -> None:
    scheduler = halving()
    for number, value in ((1, 0.9), (2, 0.8)):
        decided(scheduler, number, {2: value})
    decided(scheduler, 3, {1: 0.1, 2: 0.1, 3: 0.1})
    assert scheduler.place_of_stop(3) == "rung 2"
