import functools
import itertools
import math
import statistics
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import pytest
from studies import best_trial

from hpo.config.loading import load_search_config
from hpo.config.schema import PAUSING, SAMPLERS_OF_SEVERAL, Sampler, Scheduler, SearchConfig
from hpo.config.search_space import Params, default_params
from hpo.engine.budget import Budget, Limit
from hpo.schedulers.first_rung import FirstRung
from hpo.selection.finalists import choose_finalists, has_candidates
from hpo.selection.ranking import predicted_ranking
from hpo.selection.selection import pareto_front
from hpo.simulation.simulation import Curve, SimulatedSearch
from hpo.study.metadata import StudyMetadata
from hpo.study.study import SearchStudy
from hpo.study.trial import CARRIED_OVER_FROM, num_counted, origin
from hpo.surrogate.gp import CurveModel

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


def budget(num_epochs: int) -> str:
    """The override of a budget of `num_epochs` for trials, plus the winner's retraining."""
    return f"budget.total_epochs={num_epochs + MAX_EPOCHS}"


def curve_of(params: Params) -> Curve:
    rate = math.log10(float(params["optimizer.learning_rate"] or 0)) + 3
    final = 0.9 - 0.2 * rate**2 - 0.1 * float(params["model.drop_rate"] or 0)
    values = [final * (1 - math.exp(-epoch / 3)) for epoch in range(1, MAX_EPOCHS + 1)]
    return Curve(values, [1.0 + (rate > 0)] * MAX_EPOCHS)


def history(study: SearchStudy) -> list[Any]:
    return [(t.params, t.state, t.curve) for t in study.trials()]


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
    config = search_config(budget(total_epochs), scheduler=scheduler)
    search = simulated(config, num_slots)
    assert total_epochs - MAX_EPOCHS < search.num_epochs < total_epochs + num_slots
    assert best_trial(search.study, search.config) is not None
    assert search.study.metadata.limits_reached == config.limits
    assert search.decisions.num_missing == 0


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("num_slots", [1, 5])
@pytest.mark.parametrize("seconds", [100, 300])
@pytest.mark.parametrize("limit", ["gpu_hours", "wall_clock_hours"])
def test_hours_are_taken_and_not_exceeded(
    search_config: Any, scheduler: str, num_slots: int, seconds: int, limit: str
) -> None:
    config = search_config(
        f"budget.{limit}={seconds / 3600}", "study.num_trials=1000", scheduler=scheduler
    )
    search = simulated(config, num_slots)
    best = best_trial(search.study, search.config)
    assert best is not None
    most = seconds - sum(curve_of(best.params).seconds)  # the winner's retraining is yet to come
    taken = search.seconds if limit == "gpu_hours" else search.now
    an_epoch_of_each = 2 * num_slots if limit == "gpu_hours" else 2
    assert most - 4 * MAX_EPOCHS - an_epoch_of_each < taken < most + an_epoch_of_each
    assert search.study.metadata.limits_reached == config.limits
    assert search.decisions.num_missing == 0


WITH_FINALISTS = (  # four trainings after the search
    "retrain={top_k: 1, seeds: 2, max_share: null}", f"budget.total_epochs={40 + 4 * MAX_EPOCHS}",
)  # fmt: skip


def num_epochs_of_pruned(search: SimulatedSearch) -> int:
    trials = search.study.trials()
    return sum(trial.num_epochs for trial in trials if trial.state == "PRUNED")


@pytest.mark.parametrize("num_slots", [1, 5])
def test_what_finalists_are_trained_for_anew_the_search_does_not_pay(
    search_config: Any, num_slots: int
) -> None:
    search = simulated(search_config(*WITH_FINALISTS, scheduler="freeze_thaw"), num_slots)
    assert search.study.trials()[0].state == "COMPLETE"
    assert 40 - MAX_EPOCHS / 2 < search.num_epochs <= 40
    assert search.decisions.num_missing == 0
    to_the_end = simulated(search_config(budget(40), scheduler="freeze_thaw"), num_slots)
    assert num_epochs_of_pruned(search) > num_epochs_of_pruned(to_the_end)
    trials, facts = search.study.trials(), search.study.metadata
    finals = [curve_of(trial.params).values[-1] for trial in trials]
    ranking = predicted_ranking(search.config, trials, facts.model_state, facts.first_levels)
    assert finals[ranking[0]] == pytest.approx(max(finals), abs=0.02)


def test_where_the_default_is_lost_a_trial_is_brought_to_its_end_all_the_same(
    search_config: Any,
) -> None:
    def curve(params: Params) -> Curve:
        found = curve_of(params)
        is_default = params["optimizer.learning_rate"] == 2e-3 and params["model.drop_rate"] == 0.1
        return Curve([math.nan] * MAX_EPOCHS, found.seconds) if is_default else found

    config = search_config(*WITH_FINALISTS, scheduler="freeze_thaw")
    search = SimulatedSearch(config, curve, 2)
    search.run()
    assert search.study.trials()[0].state == "PRUNED"
    assert best_trial(search.study, search.config) is not None
    assert search.num_epochs <= 40 + 2


@pytest.mark.parametrize("num_slots", [1, 5])
def test_a_search_ends_when_too_little_is_to_be_gained(search_config: Any, num_slots: int) -> None:
    def searched(gain: float | None) -> SimulatedSearch:
        stop_when = "null" if gain is None else f"{{gain_per_gpu_hour: {gain}}}"
        overrides = ("study.num_trials=100", f"budget.stop_when={stop_when}", budget(300))
        return simulated(search_config(*overrides, scheduler="freeze_thaw"), num_slots)

    to_the_end = searched(None)
    num_epochs = []
    for gain in (0.2, 2.0):  # of val_top1, in an hour, where an epoch takes a second or two
        search = searched(gain)
        best = best_trial(search.study, search.config)
        assert best is not None
        assert (best.value or 0) > 0.85  # at most 0.884 is possible
        assert (search.study.metadata.limits_reached or {})["gain_per_gpu_hour"] == gain
        assert (search.decisions.finished, search.decisions.num_missing) == (True, 0)
        num_epochs.append(search.num_epochs)
    assert num_epochs[1] <= num_epochs[0] < to_the_end.num_epochs * 2 / 3


def test_the_rest_of_a_budget_brings_the_most_promising_trial_to_its_end(
    search_config: Any,
) -> None:
    search = simulated(search_config(budget(80)))
    best = best_trial(search.study, search.config)
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
    search = simulated(search_config("study.num_trials=5", budget(1000)), 2)
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
        f"budget.total_epochs={total_epochs + max_epochs}",
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


@pytest.mark.parametrize("scheduler", PAUSING)
@pytest.mark.parametrize("num_slots", [1, 5, 20])
@pytest.mark.parametrize("limit", ["gpu_hours", "wall_clock_hours"])
def test_hours_that_are_just_enough_leave_the_default_its_training(
    search_config: Any, scheduler: str, num_slots: int, limit: str
) -> None:
    seconds = 2 * (2 * MAX_EPOCHS + num_slots)  # the default's, the winner's, all first epochs'
    config = search_config(f"budget.{limit}={seconds / 3600}", scheduler=scheduler)
    search = SimulatedSearch(
        config, lambda params: Curve(curve_of(params).values, [2.0] * MAX_EPOCHS), num_slots
    )
    search.run()
    default, *others = search.study.trials()
    assert (default.state, default.num_epochs) == ("COMPLETE", MAX_EPOCHS)
    assert {trial.state for trial in others} <= {"COMPLETE", "PRUNED"}
    taken = search.seconds if limit == "gpu_hours" else search.now
    assert taken < seconds - 2 * MAX_EPOCHS + 2 * num_slots


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("slowness", [1.0, 3.0])
@pytest.mark.parametrize("num_trainings", [4.5, 6, 12.5, 20])
@pytest.mark.parametrize("limit", ["gpu_hours", "wall_clock_hours"])
def test_few_hours_and_slow_first_epochs_leave_the_default_its_training(
    search_config: Any, scheduler: str, slowness: float, num_trainings: float, limit: str
) -> None:
    share = 1 if limit == "gpu_hours" else 0.5  # of a training's time, on two slots
    seconds = num_trainings * MAX_EPOCHS * 2 * share
    retrain = "retrain={top_k: 3, seeds: 3, max_share: null}"
    overrides = (retrain, f"budget.{limit}={seconds / 3600}")
    search = SimulatedSearch(
        search_config(*overrides, "study.num_trials=1000", scheduler=scheduler),
        lambda params: Curve(curve_of(params).values, [2 * slowness, *[2.0] * (MAX_EPOCHS - 1)]),
        2,
    )
    search.run()
    trials = search.study.trials()
    assert (trials[0].state, trials[0].num_epochs) == ("COMPLETE", MAX_EPOCHS)
    taken = search.seconds if limit == "gpu_hours" else search.now
    on_one_seed = 4 * MAX_EPOCHS * 2 * share
    assert taken <= seconds - min(seconds / 2, on_one_seed) + 2 * 2 * slowness


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("limit", ["gpu_hours", "wall_clock_hours", "total_epochs"])
def test_the_trials_leave_a_limit_the_share_that_the_comparison_may_cost(
    search_config: Any, scheduler: str, limit: str
) -> None:
    num_epochs = 30 * MAX_EPOCHS  # of which 5 trainings are for the finalists, and 25 the trials'
    per_epoch = {"gpu_hours": 2 / 3600, "wall_clock_hours": 1 / 3600, "total_epochs": 1}[limit]
    search = SimulatedSearch(
        search_config(
            "retrain={top_k: 3, seeds: 3, max_share: 0.2}",
            f"budget.{limit}={num_epochs * per_epoch}",
            "study.num_trials=1000",
            scheduler=scheduler,
        ),
        lambda params: Curve(curve_of(params).values, [2.0] * MAX_EPOCHS),
        2,
    )
    search.run()
    assert 24 * MAX_EPOCHS < search.num_epochs <= 26 * MAX_EPOCHS


@pytest.mark.parametrize("scheduler", ["asha", "hyperband", "median", "none"])
def test_no_trial_starts_that_cannot_come_to_where_it_is_compared(
    search_config: Any, scheduler: str
) -> None:
    least = MAX_EPOCHS if scheduler == "none" else 4
    for num_epochs in range(2 * MAX_EPOCHS, 3 * MAX_EPOCHS):
        search = simulated(search_config(budget(num_epochs), scheduler=scheduler))
        lengths = [trial.num_epochs for trial in search.study.trials()]
        assert min(lengths) >= least
        assert num_epochs - least < sum(lengths) <= num_epochs
        assert search.decisions.num_missing == 0


@pytest.mark.parametrize("scheduler", ["asha", "hyperband", "median", "none"])
def test_of_several_slots_some_stay_empty_when_there_is_no_room_to_start(
    search_config: Any, scheduler: str
) -> None:
    least = MAX_EPOCHS if scheduler == "none" else 4
    for num_epochs in range(4 * MAX_EPOCHS, 5 * MAX_EPOCHS):
        search = SimulatedSearch(
            search_config(budget(num_epochs), scheduler=scheduler), curve_of, 4
        )
        goes_on = True
        while goes_on:
            left, before = num_epochs - search.num_epochs, search.study.trials()
            goes_on = search.step()
            num_started = len(search.study.trials()) - len(before)
            num_running = sum(trial.state == "RUNNING" for trial in before)
            assert num_started == 0 or left >= least * num_started + num_running
        assert search.decisions.num_missing == 0


@pytest.mark.parametrize("num_slots", [1, 4])
def test_where_the_default_misses_a_bound_others_may_win(
    search_config: Any, num_slots: int
) -> None:
    bound = "study.constraints=[val_top1 >= 0.7]"
    default = "train.optimizer.learning_rate=1e-4"
    search = simulated(search_config(*WITH_FINALISTS, bound, default), num_slots)
    trials = search.study.trials()
    assert not trials[0].is_feasible
    assert has_candidates(trials)
    ranking = predicted_ranking(search_config(*WITH_FINALISTS, bound, default), trials)
    best, measure = choose_finalists(trials, ranking, 1, search.config.space)
    assert trials[best].is_feasible
    assert measure == 0


@pytest.mark.parametrize(("num_epochs", "num_begun"), [(60, 12), (200, 20)])
def test_of_many_slots_some_wait_for_what_the_first_trials_tell(
    search_config: Any, num_epochs: int, num_begun: int
) -> None:
    search = SimulatedSearch(search_config(budget(num_epochs)), curve_of, 20)
    assert search.step()
    assert len(search.study.trials()) == num_begun  # at most half of the budget, two epochs each
    search.run()
    assert len(search.study.trials()) > 14
    assert search.num_epochs > num_epochs - MAX_EPOCHS


def dear_curve_of(params: Params, most: float = 30.0) -> Curve:
    """A curve whose epochs take up to `most` times as long with less dropout; values ignore it."""
    drop_rate = float(params["model.drop_rate"] or 0)
    values = curve_of({**params, "model.drop_rate": 0.0}).values
    return Curve(values, [most ** (1 - 2 * drop_rate)] * MAX_EPOCHS)


@pytest.mark.parametrize("num_slots", [1, 4])
def test_with_cost_aware_epochs_are_of_cheaper_configurations(
    search_config: Any, num_slots: int
) -> None:
    def log_seconds(is_aware: str) -> float:
        """The mean logarithm of an epoch's seconds."""
        logs = list[float]()
        for seed in range(8):
            config = search_config(
                f"scheduler.cost_aware={is_aware}", "retrain.max_epochs=1", "budget.gpu_hours=3",
                "study.num_trials=1000", f"study.seed={seed}",
            )  # fmt: skip
            curve = functools.partial(dear_curve_of, most=300.0)
            search = SimulatedSearch(config, curve, num_slots)
            search.run()
            for trial in search.study.trials()[1:]:
                logs += [math.log(curve(trial.params).seconds[0])] * trial.num_epochs
        return statistics.fmean(logs)

    assert log_seconds("true") < 0.93 * log_seconds("false")


def test_a_cost_aware_search_that_is_killed_goes_on_as_it_would_have(search_config: Any) -> None:
    overrides = ("scheduler.cost_aware=true", "budget.gpu_hours=0.3", "retrain.max_epochs=1")
    config = search_config(*overrides)
    whole = SimulatedSearch(config, dear_curve_of, 1)
    whole.run()
    for num_steps in (3, 20, 33):
        killed = SimulatedSearch(config, dear_curve_of, 1)
        for _ in range(num_steps):
            assert killed.step()
        resumed = SimulatedSearch(config, dear_curve_of, 1, killed.study)
        resumed.run()
        curves = [[(t.params, t.num_epochs) for t in s.study.trials()] for s in (whole, resumed)]
        assert curves[0] == curves[1]


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("lengths", [{}, {3: 4, 5: 4, 9: 8}], ids=["whole", "some stop early"])
def test_a_search_on_one_slot_that_is_killed_near_its_end_goes_on_as_it_would_have(
    search_config: Any, scheduler: str, lengths: dict[int, int]
) -> None:
    config = search_config(budget(40), scheduler=scheduler)

    def curves() -> Any:
        known: dict[str, int] = {}

        def stopping_early(params: Params) -> Curve:
            number = known.setdefault(str(sorted(params.items())), len(known))
            curve = curve_of(params)
            return Curve(curve.values[: lengths.get(number, MAX_EPOCHS)], curve.seconds)

        return stopping_early

    whole = SimulatedSearch(config, curves(), 1)
    whole.run()
    expected = [(t.params, t.state, t.curve) for t in whole.study.trials()]
    for num_steps in range(20, 40, 3):
        of_params = curves()
        first = SimulatedSearch(config, of_params, 1)
        for _ in range(num_steps):
            first.step()
        study = SearchStudy(
            first.study.optuna_study, first.study.storage, config.study, config.space
        )
        SimulatedSearch(config, of_params, 1, study).run()
        assert [(t.params, t.state, t.curve) for t in study.trials()] == expected


def shaped(shape: str) -> Any:
    """Makes curves with the same final values; early ranks are final, or inverted to epoch 5."""

    def curve(params: Params) -> Curve:
        final = curve_of(params).values[-1]
        inverted = 5 if shape == "inverted" else 0
        values = [
            (0.5 - final / 9 if epoch <= inverted else final) + epoch / 1000
            for epoch in range(1, MAX_EPOCHS + 1)
        ]
        return Curve(values, [1.0] * MAX_EPOCHS)

    return curve


@pytest.mark.parametrize(("shape", "expected"), [("final", 1), ("inverted", 7)])
@pytest.mark.parametrize("num_slots", [1, 4])
def test_the_first_level_moves_to_where_ranks_agree_with_late_ones(
    search_config: Any, shape: str, expected: int, num_slots: int
) -> None:
    config = search_config("study.num_trials=1000", budget(300))
    search = SimulatedSearch(config, shaped(shape), num_slots)
    search.run()
    chosen = search.study.metadata.first_levels
    epochs = [level["epoch"] for level in chosen]
    moved = epochs.index(expected)  # the first few late trials may be too few to move the rung
    assert set(epochs[:moved]) <= {2}
    assert epochs[moved:] == [expected] * len(epochs[moved:])
    assert 2 <= len(chosen) <= 5
    trials, start = search.study.trials(), chosen[moved]["from_trial"]
    before, after = trials[1:start], trials[start:-num_slots]
    assert min(trial.num_epochs for trial in before) in {2, 4}  # a rung; with slots, the next
    assert min(trial.num_epochs for trial in after) in {expected, MAX_EPOCHS}
    assert not {1, 3, 5, 6} & {trial.num_epochs for trial in before}
    assert search.num_epochs < 300 + num_slots


def test_a_first_level_that_is_set_stays(search_config: Any) -> None:
    scheduler = "scheduler={name: freeze_thaw, min_epochs: 3}"
    config = search_config(scheduler, "study.num_trials=1000", budget(300))
    search = SimulatedSearch(config, shaped("inverted"), 1)
    search.run()
    assert search.study.metadata.first_levels == []
    assert min(trial.num_epochs for trial in search.study.trials()[:-1]) == 3


@pytest.mark.parametrize("shape", ["final", "inverted"])
def test_a_search_that_is_killed_around_the_choice_of_its_first_level_goes_on_as_it_would_have(
    search_config: Any, shape: str
) -> None:
    config = search_config("study.num_trials=1000", budget(150))

    whole = SimulatedSearch(config, shaped(shape), 1)
    first_choice = None
    while whole.step():
        if first_choice is None and whole.study.metadata.first_levels:
            first_choice = whole.num_epochs
    assert first_choice is not None
    for num_steps in (*range(first_choice - 4, first_choice + 9), first_choice + 30):
        first = SimulatedSearch(config, shaped(shape), 1)
        for _ in range(num_steps):
            first.step()
        study = SearchStudy(
            first.study.optuna_study, first.study.storage, config.study, config.space
        )
        SimulatedSearch(config, shaped(shape), 1, study).run()
        assert study.metadata.first_levels == whole.study.metadata.first_levels
        assert history(study) == history(whole.study)


@pytest.mark.parametrize("scheduler", [name for name in SCHEDULERS if name != "none"])
def test_a_first_level_of_earlier_studies_holds_from_the_first_trial_on(
    search_config: Any, scheduler: str
) -> None:
    config = search_config(
        "study.warm_start=[earlier]", "study.num_trials=20", budget(200), scheduler=scheduler
    )
    assert config.scheduler.min_epochs is None
    study = SearchStudy.in_memory(config.study, config.space)
    level = FirstRung(
        epoch=7, late=12, num_trials=9, agreement={2: -1.0}, is_of_earlier_studies=True
    )
    study.metadata.first_levels = [level.model_dump(mode="json")]
    values = itertools.count(90, -1)

    def worse_and_worse(params: Params) -> Curve:
        return Curve([next(values) / 100] * MAX_EPOCHS, [1.0] * MAX_EPOCHS)

    curves = worse_and_worse if scheduler == "median" else shaped("inverted")
    SimulatedSearch(config, curves, 1, study).run()
    assert min(trial.num_epochs for trial in study.trials()[:-1]) == 7


@pytest.mark.parametrize("num_slots", [1, 4])
@pytest.mark.parametrize("num_trials", [2, 4, 8])
def test_a_small_search_begins_most_of_its_trials(
    search_config: Any, num_trials: int, num_slots: int
) -> None:
    trials = simulated(search_config(f"study.num_trials={num_trials}"), num_slots).study.trials()
    assert len(trials) >= max(2, 3 * num_trials // 4)
    assert sum(trial.state == "COMPLETE" for trial in trials) >= 2


@pytest.mark.parametrize("scheduler", PAUSING)
def test_a_budget_of_two_trainings_is_not_the_defaults_alone(
    search_config: Any, scheduler: str
) -> None:
    config = search_config(budget(2 * MAX_EPOCHS), scheduler=scheduler)
    trials = simulated(config).study.trials()
    assert [trial.state for trial in trials] == ["COMPLETE", "COMPLETE"]


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("length", [1, 3, 5, 9])
@pytest.mark.parametrize("num_slots", [1, 4])
def test_a_default_that_stops_itself_is_compared_with(
    search_config: Any, scheduler: str, length: int, num_slots: int
) -> None:
    config = search_config(scheduler=scheduler)
    default = default_params(config.train, config.space)

    def stopping_early(params: Params) -> Curve:
        curve = curve_of(params)
        return Curve(curve.values[: length if params == default else MAX_EPOCHS], curve.seconds)

    search = SimulatedSearch(config, stopping_early, num_slots)
    search.run()
    trials = search.study.trials()
    assert trials[0].attributes["end_reason"] == "early_stopped"
    assert len(trials) > 10
    assert {trial.state for trial in trials} <= {"COMPLETE", "PRUNED"}


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


def test_a_search_that_is_killed_half_way_to_a_first_level_goes_on_as_it_would_have(
    search_config: Any,
) -> None:
    config = search_config("study.num_trials=30", "scheduler.min_epochs=4", budget(100))

    search = SimulatedSearch(config, shaped("final"), 1)
    search.run()
    whole = history(search.study)
    assert 2 in {len(curve) for _, _, curve in whole}  # paused there
    for num_steps in range(24, 110, 5):
        first = SimulatedSearch(config, shaped("final"), 1)
        for _ in range(num_steps):
            first.step()
        study = SearchStudy(
            first.study.optuna_study, first.study.storage, config.study, config.space
        )
        SimulatedSearch(config, shaped("final"), 1, study).run()
        assert history(study) == whole


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
            values = [*curve.values[:9], math.nan]  # the best trials diverge
            return Curve(values, curve.seconds[:10])
        return curve

    config = search_config(budget(100))
    search = SimulatedSearch(config, diverging, 3)
    search.run()
    trials = search.study.trials()
    reasons = Counter(trial.attributes["end_reason"] for trial in trials)
    assert reasons["diverged"]
    assert 100 - MAX_EPOCHS < search.num_epochs < 103
    complete = [trial for trial in trials if trial.state == "COMPLETE"]
    assert len(complete) >= 2


def carried_over(search: SimulatedSearch) -> SearchStudy:
    """A new study with the trials of a search, as a changed space has them carried over."""
    study = SearchStudy.in_memory(search.config.study, search.config.space)
    for trial in search.study.trials():
        study.add(trial, dict(trial.params), {CARRIED_OVER_FROM: origin("x", trial)})
    return study


def reopened(search: SimulatedSearch) -> SearchStudy:
    """The study of a search that was killed, as the next process reads it."""
    old = search.study
    return SearchStudy(old.optuna_study, old.storage, search.config.study, search.config.space)


def test_what_another_search_has_trained_is_not_of_this_ones_budget(search_config: Any) -> None:
    config = search_config(budget(40))
    search = SimulatedSearch(config, curve_of, 1, carried_over(simulated(config)))
    search.run()
    assert 40 - MAX_EPOCHS < search.num_epochs <= 40


@pytest.mark.parametrize("scheduler", PAUSING)
@pytest.mark.parametrize("num_steps", [5, 20, 60])
def test_of_a_carried_over_trial_the_budget_pays_the_epochs_trained_since(
    search_config: Any, scheduler: str, num_steps: int
) -> None:
    config = search_config(budget(60), scheduler=scheduler)
    earlier = SimulatedSearch(config, curve_of, 1)
    for _ in range(30):
        assert earlier.step()
    search = SimulatedSearch(config, curve_of, 1, carried_over(earlier))
    for _ in range(num_steps):
        search.step()
    resumed = SimulatedSearch(config, curve_of, 1, reopened(search))
    resumed.run()
    taken = Budget.of_study(config, resumed.study).taken(Limit("total_epochs", 60))
    assert taken == search.num_epochs + resumed.num_epochs
    assert 60 - MAX_EPOCHS < taken <= 60


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_search_that_is_killed_before_it_notes_a_trials_end_goes_on_as_it_would_have(
    search_config: Any, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = search_config(budget(40), scheduler=scheduler)
    whole, killed = simulated(config), SimulatedSearch(config, curve_of, 1)

    def die(*_args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(SearchStudy, "finish", die)
        with pytest.raises(KeyboardInterrupt):
            killed.run()
    resumed = SimulatedSearch(config, curve_of, 1, reopened(killed))
    resumed.run()
    assert history(resumed.study) == history(whole.study)


@pytest.mark.parametrize("scheduler", PAUSING)
@pytest.mark.parametrize("num_slots", [1, 3])
def test_a_budget_that_is_raised_while_the_last_trial_runs_is_searched(
    search_config: Any, scheduler: str, num_slots: int
) -> None:
    first = SimulatedSearch(search_config(budget(80), scheduler=scheduler), curve_of, num_slots)
    while first.study.metadata.last_one is None:
        assert first.step()
    raised = search_config("study.num_trials=90", budget(300), scheduler=scheduler)
    resumed = SimulatedSearch(raised, curve_of, num_slots, reopened(first))
    resumed.run()
    trials = resumed.study.trials()
    assert 300 - MAX_EPOCHS < sum(trial.num_epochs for trial in trials) < 300 + 2 * num_slots
    assert resumed.study.metadata.limits_reached == raised.limits
    assert {trial.state for trial in trials} <= {"COMPLETE", "PRUNED"}


def test_a_study_that_keeps_no_limits_beside_its_last_trial_ends_with_that_trial(
    search_config: Any,
) -> None:
    config = search_config(budget(80))
    whole, killed = simulated(config), SimulatedSearch(config, curve_of, 1)
    while killed.study.metadata.last_one is None:
        assert killed.step()
    killed.study.optuna_study.set_user_attr("last_one_limits", None)  # as in the version before
    resumed = SimulatedSearch(config, curve_of, 1, reopened(killed))
    resumed.run()
    assert history(resumed.study) == history(whole.study)


@pytest.mark.parametrize(
    ("scheduler", "num_epochs"),
    [("asha_promotion", 44), ("asha_promotion", 58), ("freeze_thaw", 86)],
)
def test_a_search_that_is_killed_right_after_its_last_trial_ended_is_over(
    search_config: Any, scheduler: str, num_epochs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the last trial ends early, no other trial gets the rest of the budget."""
    config = search_config(budget(num_epochs), scheduler=scheduler)

    def stopping_early(params: Params) -> Curve:
        curve = curve_of(params)
        is_good = abs(math.log10(float(params["optimizer.learning_rate"] or 0)) + 3) < 0.15
        return Curve(curve.values[: 5 if is_good else MAX_EPOCHS], [1.0] * MAX_EPOCHS)

    whole, killed = (SimulatedSearch(config, stopping_early, 1) for _ in range(2))
    whole.run()
    finish = SearchStudy.finish

    def finish_and_die(study: SearchStudy, number: int, *args: Any) -> None:
        finish(study, number, *args)
        if number == study.metadata.last_one:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(SearchStudy, "finish", finish_and_die)
        with pytest.raises(KeyboardInterrupt):
            killed.run()
    resumed = SimulatedSearch(config, stopping_early, 1, reopened(killed))
    resumed.run()
    assert history(resumed.study) == history(whole.study)
    assert resumed.study.metadata.limits_reached == config.limits


@pytest.mark.parametrize("scheduler", PAUSING)
def test_a_search_that_is_killed_while_it_notes_its_last_trial_uses_up_a_raised_budget(
    search_config: Any, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last trial under the lower limits is not the last trial under the raised limits."""
    first = simulated(search_config(budget(60), scheduler=scheduler))
    assert first.study.metadata.last_one is not None
    raised = search_config(budget(120), scheduler=scheduler)
    killed = SimulatedSearch(raised, curve_of, 1, reopened(first))
    write = StudyMetadata.write

    def write_and_die(metadata: StudyMetadata, name: str, value: Any) -> None:
        write(metadata, name, value)
        if name.startswith("last_one"):
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(StudyMetadata, "write", write_and_die)
        with pytest.raises(KeyboardInterrupt):
            killed.run()
    resumed = SimulatedSearch(raised, curve_of, 1, reopened(killed))
    resumed.run()
    num_epochs = first.num_epochs + killed.num_epochs + resumed.num_epochs
    assert 120 - MAX_EPOCHS < num_epochs <= 120
    assert resumed.study.metadata.last_one_limits == raised.limits


@pytest.mark.parametrize("scheduler", [name for name in SCHEDULERS if name not in PAUSING])
def test_a_raised_budget_with_no_room_for_a_trial_is_noted_as_reached(
    search_config: Any, scheduler: str
) -> None:
    first = simulated(search_config(budget(40), scheduler=scheduler))
    raised = search_config(budget(41), scheduler=scheduler)
    resumed = SimulatedSearch(raised, curve_of, 1, reopened(first))
    resumed.run()
    assert resumed.num_epochs == 0
    assert resumed.study.metadata.limits_reached == raised.limits


def test_workers_that_ask_often_neither_fit_the_model_again_nor_change_the_search(
    search_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_when = "budget.stop_when={gain_per_gpu_hour: 0.2}"
    config = search_config("study.num_trials=100", stop_when, budget(300))
    fits = 0
    fit = CurveModel.__init__

    def counted(*args: Any, **options: Any) -> None:
        nonlocal fits
        fits += 1
        fit(*args, **options)

    monkeypatch.setattr(CurveModel, "__init__", counted)

    def searched(num_questions: int) -> tuple[list[Any], int]:
        nonlocal fits
        search, fits = SimulatedSearch(config, curve_of, 5), 0
        ask = search.decisions.next_trial

        def asking_often() -> Any:
            answers = (ask() for _ in range(num_questions))
            return next((answer for answer in answers if answer is not None), None)

        monkeypatch.setattr(search.decisions, "next_trial", asking_often)
        search.run()
        return history(search.study), fits

    assert searched(10) == searched(1)


MODELS = {
    "sg_former_pico": (1.0, 1e5),
    "sg_former_nano": (2.0, 4e5),
    "sg_former_micro": (9.0, 1e6),
}
ARCHITECTURES = {
    f"{name} at 32 pixels": {"latency_ms": latency, "num_parameters": num_parameters}
    for name, (latency, num_parameters) in MODELS.items()
}
SPACE = f"space.model.name={{type: categorical, choices: [{', '.join(MODELS)}]}}"
TWO = "study.objectives=[[val_top1, maximize], [latency_ms, minimize]]"
BOUND = "study.constraints=[latency_ms <= 5]"


def curve_of_model(params: Params) -> Curve:
    """A curve as by `curve_of`, but with better values for larger models."""
    curve = curve_of(params)
    gain = 0.01 * list(MODELS).index(str(params["model.name"]))
    return Curve([value + gain for value in curve.values], curve.seconds)


def simulated_models(config: SearchConfig, study: SearchStudy | None = None) -> SimulatedSearch:
    return SimulatedSearch(config, curve_of_model, 2, study, ARCHITECTURES)


RATES = "space.optimizer.learning_rate={type: categorical, choices: [2.0e-3, 1.0e-3]}"
DROPS = "space.model.drop_rate={type: categorical, choices: [0.1, 0.3]}"


@pytest.mark.parametrize(
    ("scheduler", "sampler"),
    [("asha", sampler) for sampler in SAMPLERS_OF_SEVERAL] + [("hyperband", "tpe")],
)
def test_several_objectives_are_searched_with_curves_and_rungs(
    search_config: Any, scheduler: str, sampler: str
) -> None:
    grid = (RATES,) if sampler == "grid" else ()
    config = search_config(SPACE, TWO, f"study.sampler={sampler}", *grid, scheduler=scheduler)
    search = simulated_models(config)
    search.run()
    trials = search.study.trials()
    assert len(trials) == 30
    states = Counter(trial.state for trial in trials)
    assert states.keys() == {"COMPLETE", "PRUNED"}
    assert states["PRUNED"] > 5
    for trial in trials:
        assert list(trial.curve) == list(range(1, trial.num_epochs + 1))
        assert trial.attributes["latency_ms"] == MODELS[str(trial.params["model.name"])][0]
    front = pareto_front(trials, config.study)
    assert len({trial.params["model.name"] for trial in front}) == len(front) > 1
    assert best_trial(search.study, search.config) in front


@pytest.mark.parametrize(
    ("scheduler", "sampler"),
    [("freeze_thaw", "curves"), ("asha", "curves"), ("asha", "tpe"), ("asha", "random"),
     ("asha_promotion", "tpe"), ("asha_promotion", "cmaes"), ("hyperband", "nsga2"),
     ("median", "nsga3"), ("none", "gp"), ("asha", "grid")],
)  # fmt: skip
def test_what_is_infeasible_is_not_trained(
    search_config: Any, scheduler: str, sampler: str
) -> None:
    enqueued = "study.enqueue=[{model.name: sg_former_micro}]"
    sampled = f"study.sampler={sampler}"
    fewer = "study.num_trials=12"
    grid = (RATES,) if sampler == "grid" else ()
    config = search_config(SPACE, BOUND, sampled, enqueued, fewer, *grid, scheduler=scheduler)
    search = simulated_models(config)
    search.run()
    trials = search.study.trials()
    ruled_out = [trial for trial in trials if trial.params["model.name"] == "sg_former_micro"]
    assert 1 in {trial.number for trial in ruled_out}
    for trial in ruled_out:
        assert (trial.outcome, trial.state, trial.curve) == ("INFEASIBLE", "PRUNED", {})
        assert trial.attributes["end_reason"] == "infeasible: latency_ms 9, not <= 5"
        assert trial.constraints == {"latency_ms <= 5": pytest.approx(0.8)}
    if sampler == "curves":  # its proposals are never known to be infeasible
        assert len(ruled_out) <= 2
    assert num_counted(trials) == 12 or scheduler == "freeze_thaw"
    best = best_trial(search.study, search.config)
    assert best is not None
    assert best.params["model.name"] != "sg_former_micro"


@pytest.mark.parametrize(
    "bounds",
    [
        "latency_ms <= 5",
        "latency_ms <= 5, num_parameters <= 500000",
        "latency_ms <= 5, val_loss <= 2",
    ],
)
def test_the_gp_learns_what_is_infeasible(search_config: Any, bounds: str) -> None:
    config = search_config(
        SPACE, f"study.constraints=[{bounds}]", "study.sampler=gp", "study.num_trials=20",
        scheduler="none",
    )  # fmt: skip
    search = simulated_models(config)
    search.run()
    outcomes = Counter(trial.outcome for trial in search.study.trials())
    assert outcomes["COMPLETE"] >= 19
    assert 1 <= outcomes["INFEASIBLE"] < 15
    values = {t.value for t in search.study.trials() if t.outcome == "INFEASIBLE"}
    assert values == {None}  # what the sampler is shown is not in the study


def test_what_a_crash_left_infeasible_and_running_is_not_trained(search_config: Any) -> None:
    config = search_config(SPACE, BOUND, "study.num_trials=3", scheduler="asha")
    study = SearchStudy.in_memory(config.study, config.space)
    default = default_params(config.train, config.space)
    left = study.ask(default | {"model.name": "sg_former_micro"}).number
    search = simulated_models(config, study)
    search.run()
    trials = search.study.trials()
    assert trials[left].outcome == "INFEASIBLE"
    assert num_counted(trials) == 3


def test_a_search_ends_even_if_nothing_is_feasible(search_config: Any) -> None:
    none = "study.constraints=[latency_ms <= 0.5]"
    search = simulated_models(search_config(SPACE, none, "study.num_trials=3", scheduler="asha"))
    search.run()
    trials = search.study.trials()
    assert (len(trials), {trial.outcome for trial in trials}) == (30, {"INFEASIBLE"})
    assert best_trial(search.study, search.config) is None


INFEASIBLE_DEFAULT = (SPACE, BOUND, "train.model.name=sg_former_micro", "study.num_trials=12")


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("num_slots", [1, 4])
@pytest.mark.parametrize("total_epochs", ["null", "12", "13", "40"])
def test_an_infeasible_default_is_not_trained_and_the_search_goes_on(
    search_config: Any, scheduler: str, num_slots: int, total_epochs: str
) -> None:
    limit = budget(int(total_epochs)) if total_epochs != "null" else "budget.total_epochs=null"
    config = search_config(*INFEASIBLE_DEFAULT, limit, scheduler=scheduler)
    search = SimulatedSearch(config, curve_of_model, num_slots, None, ARCHITECTURES)
    search.run()
    first, *others = search.study.trials()
    assert (first.outcome, first.curve) == ("INFEASIBLE", {})
    assert {trial.state for trial in others} <= {"COMPLETE", "PRUNED"}
    if scheduler in PAUSING or total_epochs in {"null", "40"}:
        assert any(trial.state == "COMPLETE" for trial in others)
    if total_epochs != "null":
        assert int(total_epochs) - MAX_EPOCHS < search.num_epochs
        assert search.num_epochs < int(total_epochs) + num_slots
    assert (search.decisions.num_missing, search.decisions.finished) == (0, True)


@pytest.mark.parametrize("scheduler", PAUSING)
@pytest.mark.parametrize("num_steps", [1, 6, 15, 25])
def test_a_search_with_constraints_that_is_killed_goes_on_as_it_would_have(
    search_config: Any, scheduler: str, num_steps: int
) -> None:
    bounds = "study.constraints=[latency_ms <= 5, val_top1 >= 0.8]"
    limit = budget(60)
    config = search_config(*INFEASIBLE_DEFAULT, bounds, limit, scheduler=scheduler)
    whole = SimulatedSearch(config, curve_of_model, 1, None, ARCHITECTURES)
    whole.run()
    first = SimulatedSearch(config, curve_of_model, 1, None, ARCHITECTURES)
    for _ in range(num_steps):
        first.step()
    study = SearchStudy(first.study.optuna_study, first.study.storage, config.study, config.space)
    SimulatedSearch(config, curve_of_model, 1, study, ARCHITECTURES).run()
    known, again = (
        [(t.params, t.state, t.curve, t.constraints) for t in of.trials()]
        for of in (whole.study, study)
    )
    assert again == known
    trained = [trial for trial in study.trials() if trial.curve]
    assert {trial.is_feasible for trial in trained} == {True, False}
    assert all("val_top1 >= 0.8" in trial.constraints for trial in trained)


@pytest.mark.parametrize("scheduler", ["asha", "asha_promotion"])
@pytest.mark.parametrize("num_slots", [1, 3])
def test_a_grid_of_which_some_is_infeasible_ends_with_its_last_configuration(
    search_config: Any, scheduler: str, num_slots: int
) -> None:
    grid = ("study.sampler=grid", SPACE, RATES, DROPS)
    config = search_config(BOUND, *grid, scheduler=scheduler)
    search = SimulatedSearch(config, curve_of_model, num_slots, None, ARCHITECTURES)
    search.run()
    trials = search.study.trials()
    assert len({tuple(sorted(trial.params.items())) for trial in trials}) == len(trials) == 12
    assert Counter(trial.outcome for trial in trials)["INFEASIBLE"] == 4
    assert (search.decisions.num_missing, search.decisions.finished) == (0, True)
    assert search.study.metadata.limits_reached == config.limits


def test_a_bound_on_the_metric_is_told_and_kept_to(search_config: Any) -> None:
    bounds = "study.constraints=[val_top1 >= 0.85]"
    search = simulated_models(search_config(SPACE, TWO, bounds, scheduler="asha"))
    search.run()
    complete = [trial for trial in search.study.trials() if trial.state == "COMPLETE"]
    for trial in complete:
        assert trial.is_feasible == ((trial.value or 0.0) >= 0.85)
    assert {trial.is_feasible for trial in complete} == {True, False}
    best = best_trial(search.study, search.config)
    assert best is not None
    assert best.is_feasible
