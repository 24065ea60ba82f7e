import math
import statistics
from pathlib import Path
from typing import get_args

import pytest
from optuna.trial import TrialState, create_trial

from hpo.config.loading import load_search_config
from hpo.config.schema import SAMPLERS_OF_SEVERAL, Sampler, SearchConfig
from hpo.samplers.proxy_study import Bounds, ProxyStudy


@pytest.fixture
def config(search_file: Path) -> SearchConfig:
    return load_search_config(search_file)[0]


def with_sampler(config: SearchConfig, sampler: str) -> SearchConfig:
    values = config.model_dump()
    values["study"]["sampler"] = sampler
    if sampler == "grid":
        rates = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2]
        values["space"]["optimizer.learning_rate"] = {"type": "categorical", "choices": rates}
    return SearchConfig.model_validate(values)


def with_two_objectives(config: SearchConfig) -> SearchConfig:
    values = config.model_dump()
    values["study"] |= {
        "objectives": [["val_top1", "maximize"], ["latency_ms", "minimize"]],
        "select": None,
    }
    return SearchConfig.model_validate(values)


@pytest.fixture(params=get_args(Sampler))
def sampler_config(request: pytest.FixtureRequest, config: SearchConfig) -> SearchConfig:
    return with_sampler(config, request.param)


def sampling(config: SearchConfig) -> ProxyStudy:
    """A ProxyStudy that shows the sampler only a few trials."""
    best, latest = {"cmaes": (0, 8), "qmc": (2, 0), "nsga2": (6, 0), "nsga3": (6, 0)}.get(
        config.study.sampler or "", (4, 4)
    )
    return ProxyStudy(config.study, config.space, Bounds(best, latest, 3))


def value(number: int) -> float:
    return math.sin(number)


def test_a_resumed_search_draws_what_an_unbroken_one_does(sampler_config: SearchConfig) -> None:
    def trials(reloading: int) -> list[dict]:
        source = sampling(sampler_config)
        drawn, told = [], []
        for number in range(20):
            if number == reloading:
                source = sampling(sampler_config)
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
    source = sampling(sampler_config)
    source.draw(0)
    source.report(0, {1: 0.5})
    for number in range(1, 30):
        source.draw(number)
        source.finish(number, TrialState.COMPLETE, [value(number)])
    source.report(0, {2: 0.75})
    assert source.finish(0, TrialState.PRUNED, None) == [0.75]


MIXED_SPACE = {
    "augmentation.policy": {"type": "categorical", "choices": ["mild", "guide"]},
    "augmentation.mixup": {
        "type": "float", "low": 0.0, "high": 0.8, "step": 0.1,
        "when": {"augmentation.policy": ["guide"]},
    },
    "model.drop_rate": {"type": "float", "low": 0.0, "high": 0.5, "step": 0.1},
    "optimizer.batch_size": {"type": "int", "low": 16, "high": 19, "log": True},
}  # fmt: skip


@pytest.mark.parametrize("sampler", get_args(Sampler))
def test_a_mixed_space_is_sampled_beside_running_and_pruned_trials(
    config: SearchConfig, sampler: str
) -> None:
    values = config.model_dump()
    values["study"]["sampler"], values["space"] = sampler, MIXED_SPACE
    config = SearchConfig.model_validate(values)
    source = ProxyStudy(config.study, config.space)
    drawn = [source.draw(0, {"augmentation.policy": "mild", "model.drop_rate": 0.1,
                             "optimizer.batch_size": 17})[0]]  # fmt: skip
    for number in range(1, 25):
        drawn.append(source.draw(number)[0])
        ended = number - 3  # three trials run at any time
        if ended >= 0:
            source.report(ended, {1: value(ended), 2: math.nan if ended % 7 == 0 else 0.5})
            state = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)[ended % 3]
            source.finish(ended, state, [value(ended)] if state == TrialState.COMPLETE else None)
    for params in drawn:
        has_mixup = params["augmentation.policy"] == "guide"
        assert ("augmentation.mixup" in params) == has_mixup
        assert all(config.space[path].contains(value) for path, value in params.items())
    assert len({tuple(params.items()) for params in drawn}) > 12


def distances(config: SearchConfig, sampler: str, seed: int) -> list[float]:
    """The distance of each draw from the best params; two of three trials are pruned."""
    config = with_sampler(config, sampler)
    study = config.study.model_copy(update={"seed": seed})
    source = ProxyStudy(study, config.space)
    drawn = []
    for number in range(40):
        params, _ = source.draw(number)
        rate = math.log10(float(params["optimizer.learning_rate"] or 0)) + 2.5
        drawn.append(abs(rate) + 2 * abs(float(params["model.drop_rate"] or 0) - 0.4))
        source.report(number, {1: -drawn[-1]})
        if number % 3:
            source.finish(number, TrialState.PRUNED, None)
        else:
            source.finish(number, TrialState.COMPLETE, [-drawn[-1]])
    return drawn


@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "nsga2", "nsga3"])
def test_what_ended_well_is_come_back_to(config: SearchConfig, sampler: str) -> None:
    """Over four seeds, later draws lie nearer to the best params than random draws do."""
    of_random = [d for seed in range(4) for d in distances(config, "random", seed)]
    later = [d for seed in range(4) for d in distances(config, sampler, seed)[20:]]
    assert statistics.mean(later) < 0.85 * statistics.mean(of_random)


def test_a_grid_is_drawn_to_its_last_point_and_none_twice(config: SearchConfig) -> None:
    config = with_sampler(config, "grid")
    default = {"optimizer.learning_rate": 1e-3, "model.drop_rate": 0.1}
    orders = []
    for seed in (0, 0, 1):
        study = config.study.model_copy(update={"seed": seed})
        source = ProxyStudy(study, config.space)
        drawn = [source.draw(0, default)[0]]
        drawn += [source.draw(number)[0] for number in range(1, 55)]  # all of them still run
        assert len({tuple(params.values()) for params in drawn}) == 55
        orders.append(drawn)
    assert orders[0] == orders[1] != orders[2]


def test_a_paused_trial_is_learnt_from_as_if_it_were_pruned(
    sampler_config: SearchConfig,
) -> None:
    def drawn(*, pausing: bool) -> list[dict]:
        source = sampling(sampler_config)
        params = []
        for number in range(9):
            params.append(source.draw(number)[0])
            source.report(number, {1: value(number)})
            if number == 0:
                source.finish(number, TrialState.COMPLETE, [value(number)])
            elif pausing:
                source.pause(number)
            else:
                source.finish(number, TrialState.PRUNED, None)
        if pausing:  # the trial goes on
            source.report(3, {2: 0.75})
            assert source.finish(3, TrialState.COMPLETE, [0.875]) == [0.875]
            assert source.finish(4, TrialState.PRUNED, None) == [value(4)]
        return params

    assert drawn(pausing=True) == drawn(pausing=False)


def test_a_paused_trial_that_reports_again_is_running(sampler_config: SearchConfig) -> None:
    def drawn(*, pausing: bool) -> list[dict]:
        source = sampling(sampler_config)
        rates = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2]
        for number in range(9):
            fixed = {"optimizer.learning_rate": rates[number % 5], "model.drop_rate": 0.25}
            source.draw(number, fixed)
            source.report(number, {1: value(number)})
            if number % 2 == 0:
                source.finish(number, TrialState.COMPLETE, [value(number)])
            elif pausing:
                source.pause(number)
        for number in (1, 3, 5, 7):
            source.report(number, {2: value(number)})
        return [source.draw(9)[0], source.draw(10)[0]]

    assert drawn(pausing=True) == drawn(pausing=False)


def test_fixed_params_are_taken_as_they_are(config: SearchConfig) -> None:
    fixed = {"optimizer.learning_rate": 0.001, "model.drop_rate": 0.25}
    params, distributions = ProxyStudy(config.study, config.space).draw(0, fixed)
    assert params == fixed
    assert distributions.keys() == params.keys()


def test_what_a_sampler_sees_of_a_long_study_is_bounded(config: SearchConfig) -> None:
    source = ProxyStudy(config.study, config.space)
    bound = Bounds.of("tpe").num_seen
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
    source = ProxyStudy(config.study, config.space)
    source.draw(0, {"augmentation.policy": "mild"})
    source.finish(0, TrialState.COMPLETE, [0.5])
    drawn = [source.draw(number)[0].get("augmentation.mixup") for number in range(1, 20)]
    drawn = [value for value in drawn if value is not None]
    assert len(set(drawn)) == len(drawn) > 3


def test_of_a_long_study_of_several_objectives_the_front_is_seen(
    config: SearchConfig,
) -> None:
    config = with_two_objectives(config)
    source = ProxyStudy(config.study, config.space, Bounds(4, 4, 10))
    for number in range(60):
        source.draw(number)
        source.report(number, {1: 0.5})
        stopped = number % 3 == 2
        told = None if stopped else [value(number), 1.0 + number % 5]
        state = TrialState.PRUNED if stopped else TrialState.COMPLETE
        assert source.finish(number, state, told, {"latency_ms <= 9": -0.5}) == told
    assert source.num_seen <= 20


@pytest.mark.parametrize("sampler", SAMPLERS_OF_SEVERAL)
def test_of_several_objectives_a_resumed_search_draws_what_an_unbroken_one_does(
    config: SearchConfig, sampler: str
) -> None:
    config = with_two_objectives(with_sampler(config, sampler))
    unbroken, told, drawn = ProxyStudy(config.study, config.space), [], []
    for number in range(24):
        params, distributions = unbroken.draw(number)
        unbroken.report(number, {1: 0.5})
        values, violation = [value(number), 1.0 + number % 5], -0.5 if number % 4 else 0.5
        state = TrialState.PRUNED if number % 3 == 2 else TrialState.COMPLETE
        constraints = {"latency_ms <= 9": violation}
        kept = values if state == TrialState.COMPLETE else None
        assert unbroken.finish(number, state, kept, constraints) == kept
        trial = create_trial(
            state=state, values=kept, params=params, distributions=distributions,
            intermediate_values={1: 0.5}, constraints=constraints,
        )  # fmt: skip
        trial.number = number
        told.append(trial)
        drawn.append(params)
    resumed = ProxyStudy(config.study, config.space)
    for trial in told:
        resumed.add(trial)
    assert resumed.draw(24)[0] == unbroken.draw(24)[0]
    assert len({tuple(params.values()) for params in drawn}) > 12
