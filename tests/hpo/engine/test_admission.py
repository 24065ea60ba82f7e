"""Tests of which trials the budget lets start, resume or go on; trials have eight epochs here."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hpo.config.loading import load_search_config
from hpo.engine.admission import Admission
from hpo.engine.budget import Budget
from hpo.engine.ledger import TrialLedger
from hpo.schedulers.base import Scheduler
from hpo.schedulers.factory import make_scheduler
from hpo.study.trial import TrialReport, TrialStatus

MAX_EPOCHS = 8
SET_ASIDE = MAX_EPOCHS  # for the winner's retraining
PARAMS = {"optimizer.learning_rate": 1e-3, "model.drop_rate": 0.1}


class Desk:
    """An admission, and trials whose progress the test sets."""

    def __init__(self, admission: Admission, ledger: TrialLedger, scheduler: Scheduler) -> None:
        self.admission, self._ledger, self._scheduler = admission, ledger, scheduler

    def train(self, number: int, num_epochs: int) -> None:
        """Trains a trial, which is started if it is new, up to epoch `num_epochs`."""
        if number not in self._ledger.live:
            self._ledger.start(number, PARAMS).has_slot = True
            self._scheduler.started(number, PARAMS)
        record = self._ledger.live[number]
        values = dict.fromkeys(range(1, num_epochs + 1), 0.5)
        news = record.tell(TrialReport(number, (), None, {}), values)
        self._scheduler.reported(number, news)
        self._ledger.charge(record)

    def pause(self, number: int) -> None:
        record = self._ledger.live[number]
        record.is_paused, record.has_slot = True, False
        self._scheduler.paused(number)

    def complete(self, number: int) -> None:
        self._ledger.end(self._ledger.live[number], TrialStatus.COMPLETE)
        self._scheduler.completed(number, 0.5)


@pytest.fixture
def desk(search_file: Path) -> Callable[..., Desk]:
    def make(num_epochs: int, scheduler: str = "asha", num_trials: int = 10) -> Desk:
        """A desk whose budget has `num_epochs` for trials; the first rung is at epoch 2."""
        overrides = [
            f"scheduler={{name: {scheduler}, min_epochs: 2}}", f"train.max_epochs={MAX_EPOCHS}",
            f"budget.total_epochs={num_epochs + SET_ASIDE}",
        ]  # fmt: skip
        config = load_search_config(search_file, overrides)[0]
        ledger, judge = TrialLedger(config.study.objective), make_scheduler(config)
        budget = Budget(config, ledger, 4)
        return Desk(Admission(budget, ledger, judge, MAX_EPOCHS, num_trials), ledger, judge)

    return make


def test_the_default_may_go_on_while_anything_is_left(desk: Callable[..., Desk]) -> None:
    some = desk(8)
    some.train(0, 7)
    assert some.admission.lets_go_on(0)
    some.train(0, 8)
    assert not some.admission.lets_go_on(0)


@pytest.mark.parametrize(("num_epochs", "goes_on"), [(8 + 3, True), (8 + 2, False)])
def test_another_trial_goes_on_if_that_leaves_the_default_its_training(
    desk: Callable[..., Desk], num_epochs: int, goes_on: bool
) -> None:
    some = desk(num_epochs)
    some.train(0, 1)
    some.train(1, 2)
    assert some.admission.lets_go_on(1) == goes_on


@pytest.mark.parametrize(("num_epochs", "num_to_start"), [(8 + 2 + 1, 8), (8 + 2, 0)])
def test_trials_may_start_while_an_epoch_more_of_each_leaves_something(
    desk: Callable[..., Desk], num_epochs: int, num_to_start: int
) -> None:
    some = desk(num_epochs)
    some.train(0, 1)
    some.train(1, 1)
    assert some.admission.num_to_start == num_to_start


@pytest.mark.parametrize("scheduler", ["asha", "asha_promotion", "freeze_thaw"])
@pytest.mark.parametrize(("num_epochs", "may_start"), [(8 + 2 + 2, True), (8 + 2 + 1, False)])
def test_a_new_trial_needs_room_to_its_first_rung_beside_what_runs(
    desk: Callable[..., Desk], scheduler: str, num_epochs: int, may_start: bool
) -> None:
    some = desk(num_epochs, scheduler)
    some.train(0, 3)
    some.train(1, 1)  # trial 1 runs to epoch 2
    assert some.admission.admitted(kept_to_end=0, best=None).may_start == may_start


def test_no_more_trials_start_than_are_asked_for(desk: Callable[..., Desk]) -> None:
    some = desk(100, num_trials=2)
    assert some.admission.num_to_start == 2
    some.train(0, 1)
    some.train(1, 1)
    assert some.admission.num_to_start == 0
    assert not some.admission.admitted(kept_to_end=0, best=None).may_start


@pytest.mark.parametrize("left", [1, 2, 3, 4])
def test_a_paused_trial_needs_room_to_its_next_rung_and_comes_before_new_ones(
    desk: Callable[..., Desk], left: int
) -> None:
    some = desk(8 + 2 + 4 + left, "asha_promotion")
    some.train(0, 8)
    some.complete(0)
    for number, num_epochs in ((1, 2), (2, 4)):
        some.train(number, num_epochs)
        some.pause(number)
    admitted = some.admission.admitted(kept_to_end=0, best=None)
    # From epoch 2 to 6 and from 6 to the end: rungs are at 2, 6 and 8.
    assert admitted.paused == tuple(n for n in (1, 2) if {1: 4, 2: 2}[n] <= left)
    # Besides a new trial's 2 epochs, 0.3 of a training is kept to go on with the best trials.
    assert admitted.may_start == (left >= 2 + round(0.3 * MAX_EPOCHS))
    assert admitted.may_start_waiting == (left >= 2)


def test_what_is_kept_for_the_best_trials_end_is_for_no_other(desk: Callable[..., Desk]) -> None:
    some = desk(8 + 2 + 7, "asha_promotion")
    some.train(0, 8)
    some.complete(0)
    some.train(1, 2)
    some.pause(1)
    assert some.admission.admitted(kept_to_end=0, best=1).paused == (1,)
    assert some.admission.admitted(kept_to_end=3, best=1).paused == (1,)
    assert some.admission.admitted(kept_to_end=4, best=1).paused == ()


@pytest.mark.parametrize(("num_epochs", "may_start"), [(100, True), (8 + 2 * 6 + 5, False)])
def test_some_wait_for_what_the_first_trials_tell(
    desk: Callable[..., Desk], num_epochs: int, may_start: bool
) -> None:
    some = desk(num_epochs, "freeze_thaw")
    for number in range(6):
        some.train(number, 0)
    admitted = some.admission.admitted(kept_to_end=0, best=None)
    assert admitted.may_start == may_start
    assert admitted.may_start_waiting  # trials that the user enqueued do not wait
