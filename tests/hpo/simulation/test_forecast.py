"""Tests of what a search is said to take before it runs."""

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from made_searches import MAX_EPOCHS, curve_of

from hpo.config.loading import load_search_config
from hpo.config.schema import SearchConfig
from hpo.execution.cluster import TrialResources
from hpo.simulation import forecast as forecast_module
from hpo.simulation.forecast import Assumed, forecast, strategies

NUM_TRIALS = 10
ASSUMED = Assumed(lambda params: list(curve_of(params).values), lambda train: 36.0, 30)
ONE_SLOT = TrialResources(1, 1.0, 1)


@pytest.fixture
def load(search_file: Path) -> Any:
    def load_with(*overrides: str, scheduler: str = "asha") -> SearchConfig:
        values = [
            f"scheduler={{name: {scheduler}}}", f"train.max_epochs={MAX_EPOCHS}",
            f"study.num_trials={NUM_TRIALS}", *overrides,
        ]  # fmt: skip
        return load_search_config(search_file, values)[0]

    return load_with


def silent(done: int, total: int) -> None:
    assert 0 <= done <= total == NUM_TRIALS


def test_a_search_that_stops_nothing_trains_all_to_the_end(load: Any) -> None:
    found = forecast(load(scheduler="none"), ASSUMED, ONE_SLOT, silent)
    num_epochs = (NUM_TRIALS + 1) * MAX_EPOCHS  # and the winner
    assert (found.num_trials, found.num_epochs) == (NUM_TRIALS, num_epochs)
    assert found.gpu_hours == pytest.approx(num_epochs * 36 / 3600)
    assert found.seconds == pytest.approx(num_epochs * 36)
    assert found.share_simulated == 1


def test_stopping_saves_epochs_and_hours(load: Any) -> None:
    by_name = {
        name: forecast(config, ASSUMED, ONE_SLOT, silent)
        for name, config in strategies(load()).items()
    }
    assert list(by_name) == ["asha", "none"]
    asha, none = by_name.values()
    assert asha.num_trials == none.num_trials == NUM_TRIALS
    assert asha.num_epochs < none.num_epochs
    assert asha.gpu_hours < none.gpu_hours
    assert asha.seconds < none.seconds


def test_a_search_without_stopping_has_one_forecast(load: Any) -> None:
    assert list(strategies(load(scheduler="none"))) == ["none"]


def test_a_finalist_that_is_left_alone_is_counted_as_the_winner(load: Any) -> None:
    config = load("retrain={seeds: 2, top_k: 2, max_share: 0.01}", scheduler="none")
    found = forecast(config, ASSUMED, ONE_SLOT, silent)
    assert found.num_epochs == (NUM_TRIALS + 1) * MAX_EPOCHS


def test_finalists_are_counted_in_as_many_slots_as_there_are(load: Any) -> None:
    config = load("retrain={seeds: 2, top_k: 2, max_share: null}", scheduler="none")
    found = forecast(config, ASSUMED, TrialResources(1, 1.0, 2), silent)
    num_finalists = (found.num_epochs / MAX_EPOCHS - NUM_TRIALS) / 2
    assert num_finalists in (2, 3)  # the default configuration may be among the best
    assert found.seconds == pytest.approx((NUM_TRIALS / 2 + num_finalists) * MAX_EPOCHS * 36)


@pytest.mark.parametrize(("num_gpus", "counted"), [(0.0, 1.0), (0.25, 0.25), (2.0, 2.0)])
def test_gpu_hours_are_those_of_a_trials_gpus(load: Any, num_gpus: float, counted: float) -> None:
    found = forecast(load(scheduler="none"), ASSUMED, TrialResources(1, num_gpus, 1), silent)
    assert found.gpu_hours == pytest.approx(counted * (NUM_TRIALS + 1) * MAX_EPOCHS * 36 / 3600)


@pytest.mark.parametrize("limit", ["gpu_hours", "wall_clock_hours"])
def test_a_budget_ends_the_search(load: Any, limit: str) -> None:
    config = load(f"budget.{limit}=0.6", scheduler="none")
    found = forecast(config, ASSUMED, ONE_SLOT, silent)
    assert 0.3 < found.gpu_hours <= 0.61
    assert found.num_trials < NUM_TRIALS
    shared = forecast(config, ASSUMED, TrialResources(1, 0.5, 1), silent)
    if limit == "gpu_hours":  # half a GPU trains for twice as long
        assert shared.num_epochs > 1.5 * found.num_epochs
    else:
        assert shared.num_epochs == found.num_epochs


@pytest.mark.parametrize("scheduler", ["asha", "none"])
def test_what_is_not_simulated_in_time_goes_on_alike(
    load: Any, monkeypatch: pytest.MonkeyPatch, scheduler: str
) -> None:
    config = load(scheduler=scheduler)
    whole = forecast(config, ASSUMED, ONE_SLOT, silent)
    clock = itertools.count()  # in place of seconds: each look at the clock
    ticks = SimpleNamespace(monotonic=lambda: next(clock))
    monkeypatch.setattr(forecast_module, "time", ticks)
    part = forecast(config, ASSUMED, ONE_SLOT, silent, most_seconds=0.5 * whole.num_epochs)
    assert 0.2 < part.share_simulated < 0.9
    assert part.num_epochs == pytest.approx(whole.num_epochs, rel=0.4)
    assert part.seconds == pytest.approx(whole.seconds, rel=0.4)


MODELS = ("sg_former_pico", "sg_former_nano")


def test_trials_of_different_shares_share_a_gpu_as_in_a_search(load: Any) -> None:
    small, large = (
        ({"model.name": name}, TrialResources(1, share, num))
        for name, share, num in zip(MODELS, (0.25, 1.0), (4, 1), strict=True)
    )
    mixed = TrialResources(1, 0.25, 4, by_architecture=(small, large))
    config = load(
        f"space.model.name={{type: categorical, choices: [{', '.join(MODELS)}]}}",
        scheduler="none",
    )
    by_size = [forecast(config, ASSUMED, one, silent) for one in (small[1], mixed, large[1])]
    assert {found.num_epochs for found in by_size} == {by_size[0].num_epochs}
    seconds = [found.seconds for found in by_size]
    gpu_hours = [found.gpu_hours for found in by_size]
    assert seconds == sorted(set(seconds))  # all small ones are faster, all large ones slower
    assert gpu_hours == sorted(set(gpu_hours))
