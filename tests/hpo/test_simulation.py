import math
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import pytest

from hpo.config import Sampler, Scheduler, SearchConfig, load_search_config
from hpo.search_space import Params
from hpo.simulation import Curve, SimulatedSearch
from hpo.study import CARRIED_OVER_FROM, SearchStudy

MAX_EPOCHS = 12
SCHEDULERS = get_args(Scheduler)


@pytest.fixture
def search_config(search_file: Path) -> Any:
    def load(*overrides: str, scheduler: str = "freeze_thaw") -> SearchConfig:
        values = [
            f"scheduler={{name: {scheduler}}}", f"train.max_epochs={MAX_EPOCHS}",
            "study.num_trials=30", *overrides,
        ]  # fmt: skip
        return load_search_config(search_file, values)[0]

    return load


def curve_of(params: Params) -> Curve:
    rate = math.log10(float(params["optimizer.learning_rate"] or 0)) + 3
    final = 0.9 - 0.2 * rate**2 - 0.1 * float(params["model.drop_rate"] or 0)
    values = [final * (1 - math.exp(-epoch / 3)) for epoch in range(1, MAX_EPOCHS + 1)]
    return Curve(values, [1.0 + (rate > 0)] * MAX_EPOCHS)


def simulated(config: SearchConfig, num_slots: int = 1) -> SimulatedSearch:
    search = SimulatedSearch(config, curve_of, num_slots)
    search.run()
    return search


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("num_slots", [1, 5])
def test_every_trial_ends_in_a_state_that_is_true(
    search_config: Any, scheduler: str, num_slots: int
) -> None:
    search = simulated(search_config(scheduler=scheduler), num_slots)
    trials = search.study.trials()
    states = Counter(trial.state for trial in trials)
    assert states.keys() <= {"COMPLETE", "PRUNED"}
    assert states["COMPLETE"] >= 1
    assert search.num_epochs == sum(trial.num_epochs for trial in trials)
    for trial in trials:
        assert list(trial.curve) == list(range(1, trial.num_epochs + 1))
        assert (trial.state == "COMPLETE") == (trial.num_epochs == MAX_EPOCHS)
    assert search.decisions.finished
    assert search.decisions.num_missing == 0


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("num_slots", [1, 8])
@pytest.mark.parametrize("total_epochs", [30, 100])
def test_a_budget_of_epochs_is_exceeded_by_no_more_than_what_runs(
    search_config: Any, scheduler: str, num_slots: int, total_epochs: int
) -> None:
    config = search_config(f"budget.total_epochs={total_epochs}", scheduler=scheduler)
    search = simulated(config, num_slots)
    assert total_epochs - MAX_EPOCHS < search.num_epochs < total_epochs + num_slots
    assert search.study.best_trial() is not None
    assert search.study.limits_reached == {"num_trials": 30, "total_epochs": total_epochs}
    assert search.decisions.num_missing == 0


def test_the_rest_of_a_budget_brings_the_most_promising_trial_to_its_end(
    search_config: Any,
) -> None:
    search = simulated(search_config("budget.total_epochs=80"))
    best = search.study.best_trial()
    assert best is not None
    assert best.number != 0
    finals = [curve_of(trial.params).values[-1] for trial in search.study.trials()]
    assert best.value == pytest.approx(max(finals), abs=0.01)


def test_a_quarter_of_all_full_trainings_is_the_budget_unless_one_is_set(
    search_config: Any,
) -> None:
    search = simulated(search_config())
    assert 30 * MAX_EPOCHS / 4 - MAX_EPOCHS < search.num_epochs <= 30 * MAX_EPOCHS / 4


def test_paused_trials_that_are_not_resumed_are_pruned_with_their_curves(
    search_config: Any,
) -> None:
    trials = simulated(search_config()).study.trials()
    pruned = [trial for trial in trials if trial.state == "PRUNED"]
    assert pruned
    for trial in pruned:
        assert trial.attributes["end_reason"] == f"paused at epoch {trial.num_epochs}"
        assert trial.attributes["best_value"] == max(trial.curve.values())


def test_with_few_trials_the_budget_is_spent_on_those_there_are(search_config: Any) -> None:
    search = simulated(search_config("study.num_trials=5", "budget.total_epochs=1000"), 2)
    assert [trial.num_epochs for trial in search.study.trials()] == [MAX_EPOCHS] * 5


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_simulation_is_the_same_again(search_config: Any, scheduler: str) -> None:
    first, second = (simulated(search_config(scheduler=scheduler), 3) for _ in range(2))
    assert [(t.params, t.curve) for t in first.study.trials()] == [
        (t.params, t.curve) for t in second.study.trials()
    ]
    assert first.now == second.now


def test_the_clock_is_that_of_the_slots(search_config: Any) -> None:
    one, many = (simulated(search_config(scheduler="none"), slots) for slots in (1, 30))
    assert one.now == one.seconds
    assert many.now == max(sum(curve.seconds) for curve in many.curves.values())


def test_a_training_that_stops_itself_is_complete(search_config: Any) -> None:
    def short(params: Params) -> Curve:
        curve = curve_of(params)
        return Curve(curve.values[:5], curve.seconds[:5])

    search = SimulatedSearch(search_config("study.num_trials=3", scheduler="none"), short, 1)
    search.run()
    ends = {(t.state, t.attributes["end_reason"]) for t in search.study.trials()}
    assert ends == {("COMPLETE", "early_stopped")}


@pytest.mark.parametrize(
    ("max_epochs", "total_epochs", "num_trials", "num_slots"),
    [
        (12, 12, 6, 1), (12, 13, 6, 3), (12, 24, 8, 8), (12, 24, 20, 20), (50, 100, 8, 8),
        (1, 5, 5, 2), (2, 7, 9, 3), (12, 100, 8, 64), (12, 500, 5, 3),
    ],
)  # fmt: skip
def test_small_budgets_and_many_slots_end_in_time_with_the_default_whole(
    search_config: Any, max_epochs: int, total_epochs: int, num_trials: int, num_slots: int
) -> None:
    config = search_config(
        f"train.max_epochs={max_epochs}", f"study.num_trials={num_trials}",
        f"budget.total_epochs={total_epochs}",
    )  # fmt: skip

    def curve(params: Params) -> Curve:
        values = list(curve_of(params).values) * 5
        return Curve(sorted(values[:max_epochs]), [1.0] * max_epochs)

    search = SimulatedSearch(config, curve, num_slots)
    search.run()
    trials = search.study.trials()
    assert search.num_epochs < total_epochs + num_slots
    assert (trials[0].state, trials[0].num_epochs) == ("COMPLETE", max_epochs)
    assert {trial.state for trial in trials} <= {"COMPLETE", "PRUNED"}
    assert search.decisions.num_missing == 0


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("num_slots", [1, 2, 4])
def test_a_search_that_is_killed_anywhere_keeps_to_its_budget(
    search_config: Any, scheduler: str, num_slots: int
) -> None:
    config = search_config("budget.total_epochs=60", scheduler=scheduler)
    for num_steps in range(1, 60, 4):
        first = SimulatedSearch(config, curve_of, num_slots)
        for _ in range(num_steps):
            first.step()
        study = SearchStudy(
            first.study.optuna_study, first.study.storage, config.study, config.space
        )
        second = SimulatedSearch(config, curve_of, num_slots, study)
        second.run()
        trials = study.trials()
        assert sum(trial.num_epochs for trial in trials) < 60 + 2 * num_slots
        assert {trial.state for trial in trials} <= {"COMPLETE", "PRUNED"}
        assert trials[0].state == "COMPLETE"
        for trial in trials:
            assert list(trial.curve) == list(range(1, trial.num_epochs + 1))


SAMPLERS = [name for name in get_args(Sampler) if name not in {"curves", "gp", "grid"}]


@pytest.mark.parametrize(
    ("scheduler", "sampler"),
    [(scheduler, "null") for scheduler in SCHEDULERS]
    + [("asha_promotion", sampler) for sampler in SAMPLERS],
)
def test_a_search_on_one_slot_that_is_killed_goes_on_as_it_would_have(
    search_config: Any, scheduler: str, sampler: str
) -> None:
    overrides = ("study.num_trials=14", f"study.sampler={sampler}")
    config = search_config(*overrides, scheduler=scheduler)
    whole = [(t.params, t.state, t.curve) for t in simulated(config).study.trials()]
    for num_steps in (5, 20, 33):
        first = SimulatedSearch(config, curve_of, 1)
        for _ in range(num_steps):
            first.step()
        study = SearchStudy(
            first.study.optuna_study, first.study.storage, config.study, config.space
        )
        SimulatedSearch(config, curve_of, 1, study).run()
        assert [(t.params, t.state, t.curve) for t in study.trials()] == whole


@pytest.mark.parametrize(
    ("scheduler", "reason"),
    [("asha", "stopped at rung "), ("hyperband", "stopped at rung "),
     ("median", "stopped at epoch ")],
)  # fmt: skip
def test_the_reason_says_where_a_trial_was_stopped(
    search_config: Any, scheduler: str, reason: str
) -> None:
    trials = simulated(search_config(scheduler=scheduler)).study.trials()
    pruned = [trial for trial in trials if trial.state == "PRUNED"]
    assert pruned
    for trial in pruned:
        assert trial.attributes["end_reason"] == f"{reason}{trial.num_epochs}"


@pytest.mark.parametrize("num_slots", [1, 4])
def test_with_promotion_trials_are_resumed_from_where_they_were_paused(
    search_config: Any, num_slots: int
) -> None:
    search = simulated(search_config(scheduler="asha_promotion"), num_slots)
    by_epochs = Counter(trial.num_epochs for trial in search.study.trials())
    assert by_epochs.keys() == {4, MAX_EPOCHS}
    assert 30 // 3 <= by_epochs[MAX_EPOCHS] < 20
    reasons = Counter(trial.attributes["end_reason"] for trial in search.study.trials())
    assert reasons == {"paused at epoch 4": by_epochs[4], "completed": by_epochs[MAX_EPOCHS]}


def test_another_trial_takes_the_place_of_a_last_one_that_diverges(search_config: Any) -> None:
    def diverging(params: Params) -> Curve:
        curve = curve_of(params)
        if abs(math.log10(float(params["optimizer.learning_rate"] or 0)) + 3) < 0.2:
            values = [*curve.values[:9], math.nan]  # the best ones do
            return Curve(values, curve.seconds[:10])
        return curve

    config = search_config("budget.total_epochs=100")
    search = SimulatedSearch(config, diverging, 3)
    search.run()
    trials = search.study.trials()
    reasons = Counter(trial.attributes["end_reason"] for trial in trials)
    assert reasons["diverged"]
    assert 100 - MAX_EPOCHS < search.num_epochs < 103
    complete = [trial for trial in trials if trial.state == "COMPLETE"]
    assert len(complete) >= 2


def test_what_another_search_has_trained_is_not_of_this_ones_budget(search_config: Any) -> None:
    config = search_config("budget.total_epochs=40")
    earlier = simulated(config).study.trials()
    study = SearchStudy.in_memory(config.study, config.space)
    for trial in earlier:
        study.add(trial, dict(trial.params), {CARRIED_OVER_FROM: {"study": "x", "number": 0}})
    search = SimulatedSearch(config, curve_of, 1, study)
    search.run()
    assert 40 - MAX_EPOCHS < search.num_epochs <= 40
