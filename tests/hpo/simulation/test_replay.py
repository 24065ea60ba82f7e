from pathlib import Path
from typing import get_args

import pytest
from made_searches import MAX_EPOCHS, config_of, curve_of

from hpo.config.loading import load_search_config
from hpo.config.schema import Scheduler, SearchConfig
from hpo.schedulers.first_rung import FirstRung
from hpo.simulation.replay import replay
from hpo.simulation.simulation import SimulatedSearch
from hpo.simulation.study_curves import StudyCurves
from hpo.study.study import SearchStudy
from hpo.study.trial import TrialSummary
from sgformer.errors import ConfigError

SCHEDULERS = get_args(Scheduler)


def trials_of(config: SearchConfig, num_slots: int = 1) -> tuple[TrialSummary, ...]:
    search = SimulatedSearch(config, curve_of, num_slots)
    search.run()
    return search.study.trials()


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_the_own_strategy_on_one_slot_decides_as_it_did(search_file: Path, scheduler: str) -> None:
    config = config_of(search_file, scheduler)
    trials = trials_of(config)
    search = SimulatedSearch(config, StudyCurves(config, trials), 1)
    search.run()
    assert [(t.params, t.state, t.curve) for t in search.study.trials()] == [
        (t.params, t.state, t.curve) for t in trials
    ]
    result = replay(config, trials, 1)
    assert result.share_recorded == 1
    assert result.num_epochs == sum(trial.num_epochs for trial in trials)
    assert (result.best_trial, result.best_value) == max(
        ((t.number, t.value) for t in trials if t.value is not None), key=lambda pair: pair[1]
    )


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_what_earlier_studies_gave_a_search_its_replay_begins_with(
    search_file: Path, scheduler: str
) -> None:
    config = config_of(search_file, scheduler)
    study = SearchStudy.in_memory(config.study, config.space)
    study.metadata.warm_start = [
        {"optimizer.learning_rate": rate, "model.drop_rate": 0.1} for rate in (1e-2, 2e-4)
    ]
    level = FirstRung(
        epoch=6, late=12, num_trials=4, agreement={}, is_of_earlier_studies=True
    ).model_dump(mode="json")
    study.metadata.first_levels = [level]
    search = SimulatedSearch(config, curve_of, 1, study)
    search.run()
    trials = search.study.trials()
    own = level | {"from_trial": 9, "is_of_earlier_studies": False}
    result = replay(
        config, trials, 1, warm_start=study.metadata.warm_start, first_levels=[level, own]
    )
    assert result.share_recorded == 1
    assert result.num_epochs == sum(trial.num_epochs for trial in trials)


@pytest.mark.parametrize(
    ("scheduler", "sampler", "name"),
    [("asha", None, "asha"), (None, "tpe", "asha"), (None, "curves", "freeze_thaw")],
)
def test_what_only_the_model_of_curves_can_do_other_strategies_are_tried_without(
    search_file: Path, scheduler: str | None, sampler: str | None, name: str
) -> None:
    config, _ = load_search_config(
        search_file,
        ["scheduler={name: freeze_thaw, cost_aware: true}", "study.num_trials=8",
         f"train.max_epochs={MAX_EPOCHS}", "budget.stop_when={gain_per_gpu_hour: 0.001}"],
    )  # fmt: skip
    result = replay(config, trials_of(config), 1, scheduler, sampler)
    assert result.scheduler == name


def test_other_strategies_and_slots_are_tried(search_file: Path) -> None:
    config = config_of(search_file)
    trials = trials_of(config)
    asha = replay(config, trials, 4, scheduler="asha")
    assert (asha.scheduler, asha.sampler, asha.num_slots) == ("asha", "tpe", 4)
    assert sum(asha.states.values()) == 24
    assert asha.seconds < asha.slot_seconds
    assert 0 < asha.share_recorded < 1
    assert replay(config, trials, 1, sampler="random").scheduler == "asha"


@pytest.mark.parametrize(
    ("scheduler", "sampler", "message"),
    [
        ("hyper", None, "got 'hyper'"),
        (None, "x", "got 'x'"),
        ("freeze_thaw", "tpe", "leave study.sampler out"),
    ],
)
def test_a_strategy_that_there_is_not_is_refused(
    search_file: Path, scheduler: str | None, sampler: str | None, message: str
) -> None:
    config = config_of(search_file)
    with pytest.raises(ConfigError, match=message):
        replay(config, trials_of(config), 1, scheduler, sampler)


def test_only_the_own_curves_are_replayed_as_recorded(search_file: Path) -> None:
    config = config_of(search_file)
    trials = trials_of(config)
    result = replay(config, trials, 1, others=trials)
    assert (result.share_recorded, result.num_surrogate_trials) == (1, len(trials))
    result = replay(config, (), 1, others=trials)
    assert (result.share_recorded, result.num_surrogate_trials) == (0, len(trials))


def test_several_objectives_are_replayed_with_what_architectures_cost(search_file: Path) -> None:
    overrides = [
        "scheduler={name: asha}", f"train.max_epochs={MAX_EPOCHS}", "study.num_trials=12",
        "study.objectives=[[val_top1, maximize], [latency_ms, minimize]]",
    ]  # fmt: skip
    config = load_search_config(search_file, overrides)[0]
    costs = {"sg_former_pico at 32 pixels": {"latency_ms": 2.0}}
    search = SimulatedSearch(config, curve_of, 1, architectures=costs)
    search.run()
    result = replay(config, search.study.trials(), 1, architectures=costs)
    assert result.num_epochs == search.num_epochs
    with pytest.raises(ConfigError, match="freeze_thaw judges trials by one objective"):
        replay(config, search.study.trials(), 1, "freeze_thaw", architectures=costs)


def test_what_would_lead_the_finalists_is_told(search_file: Path) -> None:
    values = config_of(search_file).model_dump()
    values["retrain"] = {"top_k": 1, "seeds": 2, "max_share": None}
    config = SearchConfig.model_validate(values)
    found = replay(config, trials_of(config), 1)
    assert found.best_trial != 0
    assert found.best_params is not None
    finals = [curve_of(trial.params).values[-1] for trial in trials_of(config)]
    assert curve_of(found.best_params).values[-1] > max(finals) - 0.02
