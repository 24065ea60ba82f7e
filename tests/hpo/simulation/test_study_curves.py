"""Tests of the trainings that a replay simulates."""

from pathlib import Path

import pytest
from made_searches import MAX_EPOCHS, config_of, curve_of

from hpo.config.schema import SearchConfig
from hpo.config.search_space import Params
from hpo.errors import StudyError
from hpo.simulation.simulation import SimulatedSearch
from hpo.simulation.study_curves import StudyCurves
from hpo.study.trial import TrialSummary


def trials_of(config: SearchConfig) -> tuple[TrialSummary, ...]:
    search = SimulatedSearch(config, curve_of, 1)
    search.run()
    return search.study.trials()


def test_what_was_not_trained_is_told_by_a_model(search_file: Path) -> None:
    config = config_of(search_file)
    trials = trials_of(config)
    curves = StudyCurves(config, trials)
    errors = []
    for rate in (5e-4, 1e-3, 2e-3):
        params: Params = {"optimizer.learning_rate": rate, "model.drop_rate": 0.2}
        assert curves.num_recorded(params) == 0
        true, told = curve_of(params).values, curves(params).values
        assert len(told) == MAX_EPOCHS
        errors.append(abs(told[-1] - true[-1]))
    assert max(errors) < 0.05


def test_a_curve_that_was_cut_is_its_own_up_to_there(search_file: Path) -> None:
    config = config_of(search_file)
    trials = trials_of(config)
    cut = next(trial for trial in trials if trial.num_epochs < MAX_EPOCHS)
    told = StudyCurves(config, trials)(cut.params)
    assert list(told.values[: cut.num_epochs]) == list(cut.curve.values())
    assert len(told.values) == MAX_EPOCHS


def test_the_model_learns_from_a_surrogate_as_well(search_file: Path) -> None:
    config = config_of(search_file)
    trials = trials_of(config)
    few = trials[:1]
    params = [t.params for t in trials if t.num_epochs == MAX_EPOCHS]

    def error(curves: StudyCurves) -> float:
        told = (curves(p).values[-1] - curve_of(p).values[-1] for p in params)
        return max(map(abs, told))

    assert error(StudyCurves(config, few, trials)) < error(StudyCurves(config, few)) / 2


@pytest.mark.parametrize(("times_own", "times_other"), [(80, 1), (1, 80)])
def test_the_model_hears_the_smaller_study_too(
    search_file: Path, times_own: int, times_other: int
) -> None:
    config = config_of(search_file)
    trials = trials_of(config)
    own = [t for t in trials if float(t.params["optimizer.learning_rate"] or 0) < 1e-3]
    others = [t for t in trials if t not in own and t.num_epochs == MAX_EPOCHS]
    curves = StudyCurves(config, own * times_own, others * times_other)
    low: Params = {"optimizer.learning_rate": 1e-4, "model.drop_rate": 0.2}
    for params in (low, others[0].params):
        assert curves.num_recorded(params) == 0
        true, told = curve_of(params).values[-1], curves(params).values[-1]
        assert told == pytest.approx(true, abs=0.03)


def test_a_study_without_epochs_has_nothing_to_replay(search_file: Path) -> None:
    config = config_of(search_file)
    with pytest.raises(StudyError, match="no epochs to replay"):
        StudyCurves(config, ())
