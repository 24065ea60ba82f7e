"""Tests of the ledger's records of trials, and of how it reads them from a study."""

import math

import pytest

from hpo.config.objectives import Objective
from hpo.engine.ledger import TrialLedger, TrialRecord
from hpo.study.trial import TrialReport, TrialStatus, TrialSummary

TOP1, LOSS = Objective.named("val_top1"), Objective.named("val_loss")


def told(record: TrialRecord, *values: float, **facts: float) -> dict[int, float]:
    """Reports a whole curve to the record; returns the epochs that are new, with their values."""
    return record.tell(TrialReport(record.number, (), None, facts), dict(enumerate(values, 1)))


@pytest.mark.parametrize(("objective", "epoch"), [(TOP1, 3), (LOSS, 2)])
def test_a_trials_value_is_the_objectives_best_epochs(objective: Objective, epoch: int) -> None:
    record = TrialRecord(0, {})
    assert record.best(objective) is None
    told(record, 0.5, 0.25, 0.75, math.nan)
    assert record.best_epoch(objective) == epoch
    assert record.best(objective) == record.curve[epoch]


def test_the_worker_says_which_epochs_weights_it_keeps() -> None:
    record = TrialRecord(0, {})
    told(record, 0.5, 0.25, 0.75, best_epoch=2)
    assert record.best(TOP1) == 0.25
    told(record, 0.5, 0.25, 0.75, math.nan, best_epoch=4)  # epoch 4 has no value
    assert record.best(TOP1) == 0.75


def test_only_epochs_that_were_not_known_are_news() -> None:
    record = TrialRecord(0, {})
    assert told(record, 0.5, 0.6) == {1: 0.5, 2: 0.6}
    assert told(record, 0.1, 0.1, 0.7) == {3: 0.7}
    assert record.curve == {1: 0.5, 2: 0.6, 3: 0.7}


def test_only_losses_of_a_worker_since_the_last_new_epoch_count() -> None:
    record = TrialRecord(0, {})
    record.lose_worker()
    record.lose_worker()
    assert record.num_lost == 2
    told(record, 0.5)
    told(record, 0.5)
    assert record.num_lost == 0


def test_what_a_lost_worker_may_have_trained_is_taken() -> None:
    ledger = TrialLedger(TOP1)
    record = ledger.start(0, {})
    told(record, 0.5, 0.6, seconds=20.0)
    record.lose_worker()
    ledger.charge(record)
    assert ledger.costs[0].taken.epochs == 3
    assert ledger.costs[0].taken.seconds == 30.0
    told(record, 0.5, 0.6, 0.7, seconds=30.0, num_epochs_trained=3)
    ledger.charge(record)
    assert ledger.costs[0].taken.epochs == 3


def test_interrupted_trials_go_on_in_the_order_in_which_they_were_interrupted() -> None:
    ledger = TrialLedger(TOP1)
    records = [ledger.start(number, {}) for number in range(3)]
    for record in (records[2], records[0]):
        ledger.interrupt(record)
    assert ledger.interrupted == (2, 0)
    assert ledger.take_interrupted() is records[2]
    assert ledger.interrupted == (0,)


@pytest.mark.parametrize("may_pause", [True, False])
def test_a_study_is_taken_up(may_pause: bool) -> None:
    kept = {"facts_so_far": {"epoch": 2, "facts": {"seconds": 4.0}}}
    curve = {1: 0.5, 2: 0.6}
    ledger = TrialLedger(
        TOP1,
        [
            TrialSummary(0, TrialStatus.COMPLETE, 0.6, {}, curve, {"end_reason": "completed"}),
            TrialSummary(1, TrialStatus.RUNNING, None, {"a": 1}, curve, kept),
            TrialSummary(2, TrialStatus.RUNNING, None, {}, {}, {}),
            TrialSummary(3, TrialStatus.PRUNED, None, {}, {}, {}, {"latency_ms <= 5": 0.1}),
            TrialSummary(4, TrialStatus.FAIL, None, {}, {}, {}),
        ],
        may_pause=may_pause,
    )
    assert list(ledger.live) == [1, 2]
    assert [record.number for record in ledger.paused] == [1] * may_pause
    assert ledger.interrupted == ((2,) if may_pause else (1, 2))
    assert (ledger.live[1].params, ledger.live[1].curve) == ({"a": 1}, curve)
    assert (ledger.num_trained, ledger.num_infeasible, ledger.num_ended_well) == (4, 1, 1)
    assert {n: cost.taken.epochs for n, cost in ledger.costs.items()} == {0: 2, 1: 2}


def test_ten_trials_that_are_ruled_out_count_as_one() -> None:
    ledger = TrialLedger(TOP1)
    for number in range(21):
        ledger.end(ledger.start(number, {}), TrialStatus.INFEASIBLE)
    assert (ledger.num_started, ledger.num_ended_well) == (2, 0)
    ledger.end(ledger.start(21, {}), TrialStatus.PRUNED)
    assert (ledger.num_started, ledger.num_ended_well) == (3, 1)
    assert ledger.is_idle
