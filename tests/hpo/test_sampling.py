import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from optuna.trial import TrialState, create_trial

from hpo import sampling
from hpo.config import SearchConfig, load_search_config
from hpo.sampling import Sampling


@pytest.fixture
def config(search_file: Path) -> SearchConfig:
    return load_search_config(search_file)[0]


@pytest.fixture(params=["curves", "tpe", "gp", "qmc", "random"])
def sampler_config(
    request: pytest.FixtureRequest, config: SearchConfig, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SearchConfig]:
    """Each sampler, with small bounds on what it sees."""
    for name in ("NUM_BEST", "NUM_LATEST"):
        monkeypatch.setattr(sampling, name, {"curves": 4, "tpe": 4, "gp": 4, "qmc": 2})
    monkeypatch.setattr(sampling, "NUM_BEFORE_REBUILD", 3)
    study = config.study.model_copy(update={"sampler": request.param})
    return config.model_copy(update={"study": study})


def value(number: int) -> float:
    return math.sin(number)


def test_a_resumed_search_draws_what_an_unbroken_one_does(sampler_config: SearchConfig) -> None:
    def trials(reloading: int) -> list[dict]:
        source = Sampling(sampler_config.study, sampler_config.space)
        drawn, told = [], []
        for number in range(20):
            if number == reloading:
                source = Sampling(sampler_config.study, sampler_config.space)
                for trial in told:
                    source.add(trial)
            params, distributions = source.draw(number)
            source.report(number, {1: value(number)})
            state = TrialState.PRUNED if number % 3 == 2 else TrialState.COMPLETE
            kept = source.finish(number, state, [value(number)] if number % 3 < 2 else None)
            trial = create_trial(
                state=state, values=kept, params=params, distributions=distributions,
                intermediate_values={1: value(number)},
            )  # fmt: skip
            trial.number = number
            told.append(trial)
            drawn.append(params)
        return drawn

    unbroken = trials(reloading=99)
    assert len({tuple(params.values()) for params in unbroken}) > 12
    for reloading in (7, 16):
        assert trials(reloading) == unbroken


def test_running_trials_outlive_what_is_forgotten(sampler_config: SearchConfig) -> None:
    source = Sampling(sampler_config.study, sampler_config.space)
    source.draw(0)
    source.report(0, {1: 0.5})
    for number in range(1, 30):
        source.draw(number)
        source.finish(number, TrialState.COMPLETE, [value(number)])
    source.report(0, {2: 0.75})
    assert source.finish(0, TrialState.PRUNED, None) == [0.75]


def test_fixed_params_are_taken_as_they_are(config: SearchConfig) -> None:
    fixed = {"optimizer.learning_rate": 0.001, "model.drop_rate": 0.25}
    params, distributions = Sampling(config.study, config.space).draw(0, fixed)
    assert params == fixed
    assert distributions.keys() == params.keys()


def test_what_a_sampler_sees_of_a_long_study_is_bounded(config: SearchConfig) -> None:
    source = Sampling(config.study, config.space)
    bound = sampling.NUM_BEST["tpe"] + sampling.NUM_LATEST["tpe"] + sampling.NUM_BEFORE_REBUILD
    params, distributions = source.draw(0)
    for number in range(2 * bound):
        trial = create_trial(
            state=TrialState.COMPLETE, value=value(number), params=params,
            distributions=distributions,
        )  # fmt: skip
        trial.number = number + 1
        source.add(trial)
    assert source.num_seen <= bound


def test_a_conditional_parameter_is_drawn_anew_for_each_trial(config: SearchConfig) -> None:
    values = config.model_dump()
    values["study"]["sampler"] = "qmc"
    when = {"augmentation.policy": ["guide"]}
    values["space"] = {
        "augmentation.policy": {"type": "categorical", "choices": ["mild", "guide"]},
        "augmentation.mixup": {"type": "float", "low": 0.0, "high": 0.8, "when": when},
    }
    config = SearchConfig.model_validate(values)
    source = Sampling(config.study, config.space)
    source.draw(0, {"augmentation.policy": "mild"})
    source.finish(0, TrialState.COMPLETE, [0.5])
    drawn = [source.draw(number)[0].get("augmentation.mixup") for number in range(1, 20)]
    drawn = [value for value in drawn if value is not None]
    assert len(set(drawn)) == len(drawn) > 3


def test_of_a_long_study_of_several_objectives_the_front_is_seen(
    config: SearchConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sampling.NUM_BEST, "tpe", 4)
    monkeypatch.setitem(sampling.NUM_LATEST, "tpe", 4)
    monkeypatch.setattr(sampling, "NUM_BEFORE_REBUILD", 10)
    values = config.model_dump()
    values["study"] |= {
        "objectives": [["val_top1", "maximize"], ["latency_ms", "minimize"]],
        "select": None,
    }
    config = SearchConfig.model_validate(values)
    source = Sampling(config.study, config.space)
    for number in range(60):
        source.draw(number)
        source.report(number, {1: 0.5})
        stopped = number % 3 == 2
        told = None if stopped else [value(number), 1.0 + number % 5]
        state = TrialState.PRUNED if stopped else TrialState.COMPLETE
        assert source.finish(number, state, told, {"latency_ms <= 9": -0.5}) == told
    assert source.num_seen <= 20
