import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from hpo.config.search_space import CategoricalParameter, FloatParameter, Space
from hpo.samplers.evolution import POPULATION, CmaEs, SteadyNSGAII, SteadyNSGAIII

SPACE: Space = {
    "x": FloatParameter(type="float", low=0.0, high=1.0),
    "y": FloatParameter(type="float", low=0.0, high=1.0),
    "kind": CategoricalParameter(type="categorical", choices=("a", "b")),
}
DISTRIBUTIONS = {
    "x": FloatDistribution(0.0, 1.0),
    "y": FloatDistribution(0.0, 1.0),
    "kind": CategoricalDistribution(("a", "b")),
}


def study_of(points: list[tuple[float, float]], state: TrialState) -> optuna.Study:
    """A study with one trial per point (x, y), of value -(x + y)."""
    study = optuna.create_study(direction="maximize")
    for x, y in points:
        study.add_trial(
            create_trial(
                state=state, value=-(x + y), params={"x": x, "y": y, "kind": "a"},
                distributions=DISTRIBUTIONS, intermediate_values={1: -(x + y)},
            )
        )  # fmt: skip
    return study


def drawn(study: optuna.Study, sampler: optuna.samplers.BaseSampler) -> tuple[float, float]:
    study.sampler = sampler
    trial = study.ask(DISTRIBUTIONS)
    study.tell(trial, state=TrialState.FAIL)
    return trial.params["x"], trial.params["y"]


def mean_of(study: optuna.Study) -> float:
    """The mean coordinate of 40 points that CMA-ES draws, over x and y."""
    return sum(sum(drawn(study, CmaEs(SPACE, seed))) for seed in range(40)) / 80


@pytest.mark.parametrize("state", [TrialState.COMPLETE, TrialState.PRUNED])
def test_cma_es_goes_from_the_first_trial_to_where_others_were_better(state: TrialState) -> None:
    first = [(0.8, 0.8)]
    assert mean_of(study_of(first, state)) == pytest.approx(0.8, abs=0.08)
    better = [(0.8 - i / 20, 0.8 - i / 20) for i in range(10)]
    assert mean_of(study_of(first + better, state)) < 0.65


def test_a_trial_without_a_value_is_the_worst() -> None:
    study = study_of([(0.5, 0.5)], TrialState.COMPLETE)
    for i in range(1, 12):
        has_value = i % 2 == 0
        point = 0.5 if has_value else 0.9
        study.add_trial(
            create_trial(
                state=TrialState.COMPLETE if has_value else TrialState.PRUNED,
                value=-1.0 if has_value else None, distributions=DISTRIBUTIONS,
                params={"x": point, "y": point, "kind": "a"},
            )
        )  # fmt: skip
    assert mean_of(study) < 0.6


def test_a_trial_that_misses_a_constraint_is_the_worst() -> None:
    study = study_of([(0.5, 0.5)], TrialState.COMPLETE)
    for i in range(1, 12):
        point = 0.5 if i % 2 == 0 else 0.1  # 0.1 is better, but infeasible
        study.add_trial(
            create_trial(
                state=TrialState.COMPLETE, value=-2 * point, distributions=DISTRIBUTIONS,
                params={"x": point, "y": point, "kind": "a"},
                constraints={"latency_ms <= 5": 0.3 if point < 0.5 else -0.3},
            )
        )  # fmt: skip
    assert mean_of(study) > 0.4


@pytest.mark.parametrize("sampler", [SteadyNSGAII, SteadyNSGAIII])
@pytest.mark.parametrize("state", [TrialState.COMPLETE, TrialState.PRUNED])
def test_parents_are_the_fittest_of_all_that_ended(
    sampler: type[SteadyNSGAII | SteadyNSGAIII], state: TrialState
) -> None:
    fit = [(i / 100, i / 100) for i in range(POPULATION)]
    unfit = [(0.5 + i / 100, 0.5 + i / 100) for i in range(POPULATION)]
    study = study_of(unfit + fit, state)
    children = [drawn(study, sampler(seed)) for seed in range(40)]
    of_the_fit = {x for x, _ in fit}
    inherited = [x for pair in children for x in pair if x in of_the_fit]
    assert len(inherited) > 30  # the others mutated
    assert not {x for pair in children for x in pair} & {x for x, _ in unfit}


@pytest.mark.parametrize("sampler", [SteadyNSGAII, SteadyNSGAIII])
def test_of_several_objectives_parents_are_on_the_feasible_front(
    sampler: type[SteadyNSGAII | SteadyNSGAIII],
) -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])

    def add(x: float, values: list[float] | None, violation: float = -1.0) -> None:
        study.add_trial(
            create_trial(
                state=TrialState.PRUNED if values is None else TrialState.COMPLETE, values=values,
                params={"x": x, "y": x, "kind": "a"}, distributions=DISTRIBUTIONS,
                constraints={"latency_ms <= 50": violation},
            )
        )  # fmt: skip

    for i in range(POPULATION):
        add(i / 100, [0.5 + i / 100, 10.0 + i])  # on the front
        add(0.5 + i / 100, [0.1, 30.0 + i])  # dominated
        add(0.7 + i / 100, [0.9, 1.0 + i], violation=0.5)  # better, but infeasible
        add(0.9 + i / 1000, None)  # pruned, or infeasible before training
    known = {i / 100 for i in range(POPULATION)}
    others = {trial.params["x"] for trial in study.trials} - known
    children = [x for seed in range(40) for x in drawn(study, sampler(seed))]
    assert len([x for x in children if x in known]) > 30
    assert not set(children) & others


@pytest.mark.parametrize("sampler", [SteadyNSGAII, SteadyNSGAIII])
def test_the_next_trial_may_have_other_parents(
    sampler: type[SteadyNSGAII | SteadyNSGAIII],
) -> None:
    study = study_of([(0.9, 0.9)] * POPULATION, TrialState.COMPLETE)
    drawn(study, sampler(0))
    study.add_trials(study_of([(0.1, 0.1)] * POPULATION, TrialState.COMPLETE).trials)
    assert 0.1 in {x for seed in range(10) for x in drawn(study, sampler(seed))}


@pytest.mark.parametrize("sampler", [SteadyNSGAII, SteadyNSGAIII])
def test_there_are_no_parents_before_there_is_a_population(
    sampler: type[SteadyNSGAII | SteadyNSGAIII],
) -> None:
    known = [(i / 100, i / 100) for i in range(POPULATION - 1)]
    study = study_of(known, TrialState.COMPLETE)
    children = {x for seed in range(20) for x in drawn(study, sampler(seed))}
    assert not children & {x for x, _ in known}
