"""What a search has taken of its limits, and what is left for its trials."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpo.budget import Budget, Limit
from hpo.config import load_search_config
from hpo.trial_summary import TrialSummary

GPU_HOURS = Limit("gpu_hours", 3600.0)
WALL_CLOCK = Limit("wall_clock_hours", 3600.0, adds_up=False)
EPOCHS = Limit("total_epochs", 100.0)
LIMITS = ["budget.gpu_hours=1", "budget.wall_clock_hours=1", "budget.total_epochs=100"]
MAX_EPOCHS = 4  # of the search file


@pytest.fixture
def make_budget(search_file: Path) -> Callable[..., Budget]:
    def make(*overrides: str, num_slots: int = 2, now: float = 0.0) -> Budget:
        config, _ = load_search_config(search_file, [*LIMITS, *overrides])
        return Budget(config, num_slots, iter([now, *range(10, 20)]).__next__)

    return make


def curve(*values: float) -> dict[int, float]:
    return dict(enumerate(values, start=1))


def facts(seconds: float, gpu_seconds: float, num_epochs_trained: int) -> dict[str, Any]:
    return {
        "seconds": seconds, "gpu_seconds": gpu_seconds, "num_epochs_trained": num_epochs_trained,
    }  # fmt: skip


def test_no_limit_is_none_but_of_the_default_scheduler(search_file: Path) -> None:
    config, _ = load_search_config(search_file, ["scheduler.name=asha"])
    assert Budget(config, 2).limits == ()


def test_the_limits_are_those_of_the_search_file(make_budget: Callable[..., Budget]) -> None:
    assert make_budget().limits == (EPOCHS, GPU_HOURS, WALL_CLOCK)


def test_epochs_that_were_trained_twice_count_twice(make_budget: Callable[..., Budget]) -> None:
    budget = make_budget()
    budget.trained(0, curve(0.1, 0.2), facts(20.0, 40.0, 3))
    assert budget.taken(EPOCHS) == 3
    assert budget.taken(GPU_HOURS) == 60.0
    assert budget.an_epoch(GPU_HOURS, 0) == 20.0
    assert budget.an_epoch(WALL_CLOCK, 0) == 10.0


def test_a_trial_without_a_gpu_counts_as_one_on_a_gpu(make_budget: Callable[..., Budget]) -> None:
    budget = make_budget()
    budget.trained(0, curve(0.1), facts(20.0, 0.0, 1))
    assert budget.taken(GPU_HOURS) == 20.0


def test_it_knows_what_an_epoch_takes_of_those_that_were_timed(
    make_budget: Callable[..., Budget],
) -> None:
    budget = make_budget("budget.gpu_hours=1")
    budget.trained(0, {1: 0.5, 2: 0.6}, {"seconds": 6.0})
    budget.trained(1, {1: 0.5, 2: 0.6}, {"seconds": 6.0, "gpu_seconds": 1.0})
    budget.trained(2, {1: 0.5}, {})
    assert budget.seconds_an_epoch() == {0: 3.0, 1: 0.5}


def test_a_trial_not_known_takes_what_the_others_do(make_budget: Callable[..., Budget]) -> None:
    budget = make_budget()
    assert budget.an_epoch(GPU_HOURS) == 0.0
    budget.trained(0, curve(0.1), facts(10.0, 10.0, 1))
    budget.trained(1, curve(0.1), facts(30.0, 30.0, 1))
    budget.trained(2, curve(0.1), {})
    assert budget.an_epoch(GPU_HOURS) == budget.an_epoch(GPU_HOURS, 2) == 20.0


@pytest.mark.parametrize(
    ("retrain", "epochs", "gpu_seconds", "seconds"),
    [
        ({"seeds": 0, "top_k": 1}, 4, 4 * 30, 4 * 30),  # the winner alone, and it is slow
        ({"seeds": 0, "top_k": 2}, 4, 4 * 30, 4 * 30),  # the dearest that may win
        ({"seeds": 2, "top_k": 1}, 16, 16 * 30, 2 * 4 * 30),  # two at a time
        ({"seeds": 2, "top_k": 2, "max_epochs": 8}, 48, 48 * 20, 3 * 8 * 20),
    ],
)
def test_the_trainings_after_the_search_are_set_aside(
    make_budget: Callable[..., Budget],
    retrain: dict[str, int],
    epochs: int,
    gpu_seconds: float,
    seconds: float,
) -> None:
    budget = make_budget(*(f"retrain.{name}={value}" for name, value in retrain.items()))
    budget.trained(0, curve(0.1), facts(10.0, 10.0, 1))
    budget.trained(1, curve(0.9), facts(30.0, 30.0, 1))
    budget.trained(2, curve(math.nan), facts(50.0, 50.0, 1))
    assert budget.left(EPOCHS) == 100 - 3 - epochs
    assert budget.left(GPU_HOURS) == 3600 - 90 - gpu_seconds
    assert budget.left(WALL_CLOCK) == 3600 - 10 - seconds


def test_it_says_what_is_taken(make_budget: Callable[..., Budget]) -> None:
    budget = make_budget("budget.gpu_hours=2")
    budget.trained(0, curve(0.1, 0.2), facts(900.0, 1800.0, 2))
    expected = "2 of 100 epochs, 0.5 of 2 GPU-hours, 0.002778 of 1 hours"
    assert budget.in_words() == expected


def test_what_earlier_runs_took_is_taken(make_budget: Callable[..., Budget]) -> None:
    budget = make_budget(now=3.0)
    ended = TrialSummary(0, "COMPLETE", 0.5, {}, curve(0.5, 0.5), facts(20.0, 20.0, 2))
    ended.attributes["end_reason"] = "completed"  # type: ignore[index]
    carried = TrialSummary(1, "COMPLETE", 0.5, {}, curve(0.5), {"carried_over_from": {}})
    fresh = {"num_epochs": 4, "seconds": 40.0, "gpu_seconds": 80.0}
    budget.take_up([ended, carried], [fresh], 100.0)
    assert budget.taken(EPOCHS) == 6
    assert budget.taken(GPU_HOURS) == 100.0
    assert budget.taken(WALL_CLOCK) == 107.0


@pytest.mark.parametrize(
    ("limit", "num_epochs_trained", "num_seeds"),
    [
        ("budget.total_epochs=28", 3, 3),  # a seed takes 8, and an epoch of the default
        ("budget.total_epochs=28", 4, 2),
        ("budget.gpu_hours=0.08", 1, 1),  # 288 seconds, 40 are taken, 160 a seed
        ("budget.gpu_hours=0.1", 1, 2),
        ("budget.gpu_hours=0.001", 1, 1),
        ("budget.wall_clock_hours=0.08", 1, 2),  # 10 are taken; two at a time, 120 a round
    ],
)
def test_finalists_are_trained_on_as_many_seeds_as_fit(
    make_budget: Callable[..., Budget], limit: str, num_epochs_trained: int, num_seeds: int
) -> None:
    budget = make_budget("retrain.seeds=3", "retrain.top_k=1", limit)
    budget.trained(0, curve(0.1), facts(10.0, 10.0, 1))
    budget.trained(1, curve(0.9), facts(30.0, 30.0, num_epochs_trained))
    assert budget.num_seeds((1, 0), 3) == num_seeds
