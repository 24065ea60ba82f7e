"""Tests of how much a search has spent of its limits, and how much is left for its trials."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from hpo.config.loading import load_search_config
from hpo.config.schema import SearchConfig
from hpo.engine.budget import Budget, Limit
from hpo.engine.ledger import TrialLedger
from hpo.study.trial import TrialReport, TrialStatus, TrialSummary

GPU_HOURS = Limit("gpu_hours", 3600.0)
WALL_CLOCK = Limit("wall_clock_hours", 3600.0, adds_up=False)
EPOCHS = Limit("total_epochs", 100.0)
LIMITS = ["budget.gpu_hours=1", "budget.wall_clock_hours=1", "budget.total_epochs=100"]
MAX_EPOCHS = 4  # of the search file


class Spender:
    """A budget, the ledger of the trials that it pays for, and a clock that the test sets."""

    def __init__(
        self,
        config: SearchConfig,
        num_slots: int = 1,
        trials: Sequence[TrialSummary] = (),
        **options: Any,
    ) -> None:
        self.now = 0.0
        self.ledger = TrialLedger(config.study.objective, trials)
        self.budget = Budget(config, self.ledger, num_slots, lambda: self.now, **options)
        self.limits = self.budget.limits

    def trained(self, number: int, values: dict[int, float], facts: dict[str, Any]) -> None:
        """A trial reports its whole curve."""
        if number not in self.ledger.live:
            self.ledger.start(number, {})
        record = self.ledger.live[number]
        record.tell(TrialReport(number, (), None, facts), values)
        self.ledger.charge(record)


@pytest.fixture
def make_budget(search_file: Path) -> Callable[..., Spender]:
    def make(*overrides: str, **options: Any) -> Spender:
        return Spender(load_search_config(search_file, [*LIMITS, *overrides])[0], 2, **options)

    return make


def curve(*values: float) -> dict[int, float]:
    return dict(enumerate(values, start=1))


def facts(seconds: float, gpu_seconds: float, num_epochs_trained: int) -> dict[str, Any]:
    return {
        "seconds": seconds, "gpu_seconds": gpu_seconds, "num_epochs_trained": num_epochs_trained,
    }  # fmt: skip


def test_no_limit_is_none_but_of_the_default_scheduler(search_file: Path) -> None:
    config, _ = load_search_config(search_file, ["scheduler.name=asha"])
    assert Spender(config).limits == ()


def test_the_limits_are_those_of_the_search_file(make_budget: Callable[..., Spender]) -> None:
    assert make_budget().limits == (EPOCHS, GPU_HOURS, WALL_CLOCK)


def test_epochs_that_were_trained_twice_count_twice(make_budget: Callable[..., Spender]) -> None:
    spender = make_budget()
    spender.trained(0, curve(0.1, 0.2), facts(20.0, 40.0, 3))
    assert spender.budget.taken(EPOCHS) == 3
    assert spender.budget.taken(GPU_HOURS) == 60.0
    assert spender.budget.an_epoch(GPU_HOURS, 0) == 20.0
    assert spender.budget.an_epoch(WALL_CLOCK, 0) == 10.0


def test_a_trial_without_a_gpu_counts_as_one_on_a_gpu(make_budget: Callable[..., Spender]) -> None:
    spender = make_budget()
    spender.trained(0, curve(0.1), facts(20.0, 0.0, 1))
    assert spender.budget.taken(GPU_HOURS) == 20.0


def test_it_knows_what_an_epoch_takes_of_those_that_were_timed(
    make_budget: Callable[..., Spender],
) -> None:
    spender = make_budget("budget.gpu_hours=1")
    spender.trained(0, {1: 0.5, 2: 0.6}, {"seconds": 6.0})
    spender.trained(1, {1: 0.5, 2: 0.6}, {"seconds": 6.0, "gpu_seconds": 1.0})
    spender.trained(2, {1: 0.5}, {})
    assert spender.budget.seconds_an_epoch() == {0: 3.0, 1: 0.5}


def test_a_trial_not_known_takes_what_the_others_do(make_budget: Callable[..., Spender]) -> None:
    spender = make_budget()
    assert spender.budget.an_epoch(GPU_HOURS) == 0.0
    spender.trained(0, curve(0.1), facts(10.0, 10.0, 1))
    spender.trained(1, curve(0.1), facts(30.0, 30.0, 1))
    spender.trained(2, curve(0.1), {})
    assert spender.budget.an_epoch(GPU_HOURS) == spender.budget.an_epoch(GPU_HOURS, 2) == 20.0


@pytest.mark.parametrize(
    ("retrain", "epochs", "gpu_seconds", "seconds"),
    [
        ({"seeds": 0, "top_k": 1}, 4, 4 * 30, 4 * 30),  # only the winner, a slow trial
        ({"seeds": 0, "top_k": 2}, 4, 4 * 30, 4 * 30),  # the most expensive possible winner
        ({"seeds": 2, "top_k": 1}, 16, 16 * 30, 2 * 4 * 30),  # two at a time
        ({"seeds": 2, "top_k": 2, "max_epochs": 8}, 48, 48 * 20, 3 * 8 * 20),
    ],
)
def test_the_trainings_after_the_search_are_set_aside(
    make_budget: Callable[..., Spender],
    retrain: dict[str, int],
    epochs: int,
    gpu_seconds: float,
    seconds: float,
) -> None:
    spender = make_budget(*(f"retrain.{name}={value}" for name, value in retrain.items()))
    spender.now = 10.0
    spender.trained(0, curve(0.1), facts(10.0, 10.0, 1))
    spender.trained(1, curve(0.9), facts(30.0, 30.0, 1))
    spender.trained(2, curve(math.nan), facts(50.0, 50.0, 1))
    assert spender.budget.left(EPOCHS) == 100 - 3 - epochs
    assert spender.budget.left(GPU_HOURS) == 3600 - 90 - gpu_seconds
    assert spender.budget.left(WALL_CLOCK) == 3600 - 10 - seconds


def test_who_may_win_is_told_by_the_epochs_whose_weights_are_kept(
    make_budget: Callable[..., Spender],
) -> None:
    spender = make_budget("retrain={seeds: 0, top_k: 1}")
    spender.trained(0, curve(0.6), facts(10.0, 10.0, 1))
    spender.trained(1, curve(0.9, 0.5), facts(60.0, 60.0, 2) | {"best_epoch": 2})  # by val_loss
    assert spender.budget.left(GPU_HOURS) == 3600 - 70 - 4 * 10


def test_it_says_what_is_taken(make_budget: Callable[..., Spender]) -> None:
    spender = make_budget("budget.gpu_hours=2")
    spender.trained(0, curve(0.1, 0.2), facts(900.0, 1800.0, 2))
    spender.now = 10.0
    expected = "2 of 100 epochs, 0.5 of 2 GPU-hours, 0.002778 of 1 hours"
    assert spender.budget.in_words() == expected


def test_what_earlier_runs_took_is_taken(make_budget: Callable[..., Spender]) -> None:
    ended = TrialSummary(
        0, TrialStatus.COMPLETE, 0.5, {}, curve(0.5, 0.5),
        {**facts(20.0, 20.0, 2), "end_reason": "completed"},
    )  # fmt: skip
    carried = TrialSummary(1, TrialStatus.COMPLETE, 0.5, {}, curve(0.5), {"carried_over_from": {}})
    fresh = {"num_epochs": 4, "seconds": 40.0, "gpu_seconds": 80.0}
    spender = make_budget(trials=[ended, carried], fresh=[fresh], seconds_before=100.0)
    spender.now = 7.0
    budget = spender.budget
    assert budget.taken(EPOCHS) == 6
    assert budget.taken(GPU_HOURS) == 100.0
    assert budget.taken(WALL_CLOCK) == 107.0


def test_of_a_carried_over_trial_what_was_trained_since_is_taken(
    make_budget: Callable[..., Spender],
) -> None:
    own = {"study": "x", "number": 3, "num_epochs": 2, "num_epochs_trained": 3, "seconds": 20.0}
    kept = {"epoch": 3, "facts": facts(30.0, 60.0, 4)}
    trial = TrialSummary(
        0, TrialStatus.RUNNING, None, {}, curve(0.5, 0.6, 0.7),
        {"carried_over_from": own, "facts_so_far": kept},
    )  # fmt: skip
    spender = make_budget(trials=[trial])
    assert spender.budget.taken(EPOCHS) == 1
    assert spender.budget.taken(GPU_HOURS) == 60.0 * 4 / 3 - 20.0 * 3 / 2
    spender.trained(0, curve(0.5, 0.6, 0.7, 0.8), facts(40.0, 80.0, 5))
    assert spender.budget.taken(EPOCHS) == 2


@pytest.mark.parametrize(
    ("limit", "num_trainings"),
    [
        ("budget.total_epochs=100", 12),  # trainings of 4 epochs; 52 epochs are spent
        ("budget.total_epochs=99", 11),
        ("budget.gpu_hours=0.1", 3),  # 40 of 360 s are spent; trainings take 120 and 40 s by turns
        ("budget.wall_clock_hours=0.1", 4),  # 10 of 360 s are spent; a round of two takes 120 s
        ("scheduler={name: freeze_thaw}", 99),
    ],
)
def test_it_knows_how_many_trainings_what_is_left_pays_for(
    search_file: Path, limit: str, num_trainings: int
) -> None:
    config, _ = load_search_config(search_file, [limit])
    spender = Spender(config, 2)
    spender.now = 10.0
    spender.trained(0, curve(0.1), facts(10.0, 10.0, 1))
    spender.trained(1, curve(0.9), facts(30.0, 30.0, 1))
    spender.trained(2, curve(0.5), facts(1e-6, 1e-6, 50))
    numbers = [1, 0] * 50
    fitting = [n for n in range(1, 100) if spender.budget.lets_train(numbers[:n])]
    assert fitting == list(range(1, num_trainings + 1))


@pytest.mark.parametrize(
    ("seconds", "set_aside"),
    [(480, 240), (479, 160), (320, 160), (319, 80), (160, 80), (150, 75), (2, 1)],
)
def test_of_hours_half_is_set_aside_at_most_for_fewer_seeds(
    search_file: Path, seconds: int, set_aside: float
) -> None:
    overrides = [
        "retrain={seeds: 3, top_k: 1, max_share: null}",
        f"budget.gpu_hours={seconds / 3600}",
    ]
    config, _ = load_search_config(search_file, overrides)
    spender = Spender(config)
    spender.trained(0, curve(0.1), facts(10.0, 10.0, 1))  # 6 trainings of 4 epochs
    assert spender.budget.left(spender.budget.limits[0]) == pytest.approx(seconds - 10 - set_aside)


@pytest.mark.parametrize(("num_trained", "set_aside"), [(0, 24), (1, 20), (4, 8), (6, 8), (9, 8)])
def test_a_search_that_goes_on_sets_aside_what_new_finalists_may_take(
    search_file: Path, num_trained: int, set_aside: int
) -> None:
    overrides = ["retrain={seeds: 3, top_k: 1, max_share: null}", "budget.total_epochs=100"]
    config, _ = load_search_config(search_file, overrides)
    evaluation = {"num_epochs": 0, "seconds": 1.0}  # which is no training
    fresh = [*[{"num_epochs": 4, "seconds": 4.0}] * num_trained, evaluation]
    budget = Spender(config, fresh=fresh).budget
    assert budget.left(budget.limits[0]) == 100 - 4 * num_trained - set_aside


def test_an_evaluation_takes_time_but_is_none_of_the_trainings_set_aside(
    make_budget: Callable[..., Spender],
) -> None:
    before = make_budget().budget
    evaluation = {"num_epochs": 0, "seconds": 6.0, "gpu_seconds": 12.0}
    after = make_budget(fresh=[evaluation]).budget
    assert after.taken(GPU_HOURS) == before.taken(GPU_HOURS) + 12
    assert after.left(GPU_HOURS) == before.left(GPU_HOURS) - 12
    assert after.left(EPOCHS) == before.left(EPOCHS)


def test_a_limit_that_follows_from_the_number_of_trials_is_of_trials_alone(
    search_file: Path,
) -> None:
    config, _ = load_search_config(search_file, ["scheduler={name: freeze_thaw}"])
    spender = Spender(config, fresh=[{"num_epochs": 1000, "seconds": 4.0}])
    (limit,) = spender.limits
    spender.trained(0, curve(0.5, 0.6), {})
    assert (spender.budget.taken(limit), spender.budget.left(limit)) == (2, limit.total - 2)


def test_epochs_that_no_report_timed_take_what_others_do(
    make_budget: Callable[..., Spender],
) -> None:
    spender = make_budget()
    spender.trained(0, curve(0.1, 0.2), facts(10.0, 20.0, 2))
    spender.trained(1, {}, {"num_epochs_trained": 3})
    assert spender.budget.taken(EPOCHS) == 5
    assert spender.budget.taken(GPU_HOURS) == 50.0


@pytest.mark.parametrize(
    ("max_share", "set_aside"),
    [
        (1.0, 24),  # all 6 trainings of 4 epochs, as they are less than half of 100
        (0.25, 16),  # 4 trainings in 20 epochs: whole seeds, for both finalists
        (0.05, 100 / 21),  # less than a seed for both
        (0.01, 4),  # one training, in any case
    ],
)
def test_as_much_is_set_aside_as_the_share_allows(
    search_file: Path, max_share: float, set_aside: float
) -> None:
    retrain = f"retrain={{seeds: 3, top_k: 1, max_share: {max_share}}}"
    config, _ = load_search_config(search_file, [retrain, "budget.total_epochs=100"])
    budget = Spender(config).budget
    assert budget.left(budget.limits[0]) == pytest.approx(100 - set_aside)


@pytest.mark.parametrize("is_timed", [True, False])
@pytest.mark.parametrize(
    ("max_share", "num"), [(0.34, 2), (0.5, 3), (0.49, 3), (0.2, 1), (0.01, 1)]
)
def test_the_share_says_how_many_trainings_the_trials_pay_for(
    search_file: Path, max_share: float, num: int, *, is_timed: bool
) -> None:
    retrain = f"retrain={{seeds: 3, top_k: 1, max_share: {max_share}}}"
    fresh = [{"num_epochs": 4, "seconds": 8.0, "gpu_seconds": 8.0}]  # which says nothing
    spender = Spender(load_search_config(search_file, [retrain])[0], fresh=fresh)
    for number in range(6):
        told = facts(8.0, 8.0, 4) if is_timed else {}
        spender.trained(number, curve(0.1, 0.2, 0.3, 0.4), told)
    fitting = [n for n in range(9) if spender.budget.keeps_to_share([1] * n)]
    assert fitting == list(range(num + 1))


@pytest.mark.parametrize(("has_teacher", "set_aside"), [(False, 24), (True, 24)])
def test_a_seed_is_set_aside_whole_also_with_a_teacher(
    search_file: Path, tmp_path: Path, set_aside: int, *, has_teacher: bool
) -> None:
    teacher = [f"train.distillation.teacher={tmp_path}"] if has_teacher else []
    retrain = "retrain={seeds: 3, top_k: 1, max_share: 0.34}"  # 25 of 100 epochs, 6 trainings
    settings = [retrain, "budget.total_epochs=100", *teacher]
    budget = Spender(load_search_config(search_file, settings)[0]).budget
    assert budget.left(budget.limits[0]) == 100 - set_aside


def test_a_resumed_search_sets_aside_a_share_of_what_is_left_of_a_limit(search_file: Path) -> None:
    settings = ["retrain={seeds: 3, top_k: 1, max_share: 0.25}", "budget.total_epochs=100"]
    fresh = [{"num_epochs": 4, "seconds": 4.0}] * 4
    budget = Spender(load_search_config(search_file, settings)[0], fresh=fresh).budget
    assert budget.left(budget.limits[0]) == 100 - 16 - 8  # 8: one seed, of a fifth of 84


def test_without_a_share_the_comparison_may_cost_anything(search_file: Path) -> None:
    config, _ = load_search_config(search_file, ["retrain={seeds: 3, max_share: null}"])
    assert Spender(config).budget.keeps_to_share([0] * 1000)
