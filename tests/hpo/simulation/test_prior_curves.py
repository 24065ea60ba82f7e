"""Tests of the learning curves that a forecast assumes."""

from pathlib import Path

import pytest
from commands import write_run
from made_searches import MAX_EPOCHS, config_of

from hpo.config.loading import load_search_config
from hpo.config.search_space import Params
from hpo.errors import StudyError
from hpo.run_folder import RunFolder
from hpo.simulation.prior_curves import prior_curves
from hpo.study.study import SearchStudy

PARAMS: list[Params] = [
    {"optimizer.learning_rate": rate, "model.drop_rate": 0.1} for rate in (1e-4, 1e-3, 1e-2)
]


@pytest.fixture
def earlier(search_file: Path, tmp_path: Path) -> Path:
    """A run whose metric is 50 times the learning rate, in every epoch."""
    folder = write_run(tmp_path / "earlier", search_file)
    run = RunFolder(folder)
    config = run.load_config()
    study = SearchStudy.open(run.storage_url(config), config.study, config.space)
    study.metadata.search_config = config.model_dump(mode="json")
    return folder


def test_power_laws_rise_and_are_the_same_each_time(search_file: Path) -> None:
    config = config_of(search_file)
    values_of, text = prior_curves(config)
    assert text == "curves are power laws drawn at random, the same each time"
    curves = [values_of(params) for params in PARAMS]
    for curve in curves:
        assert len(curve) == MAX_EPOCHS
        assert 0 < curve[0] < curve[-1] < 1
    assert len({tuple(curve) for curve in curves}) == 3
    assert curves == [prior_curves(config)[0](params) for params in PARAMS]


def test_a_loss_falls(search_file: Path) -> None:
    config = load_search_config(search_file, ["study.objectives=[[val_loss, minimize]]"])[0]
    curve = prior_curves(config)[0](PARAMS[0])
    assert curve[0] > curve[-1] > 0


def test_an_earlier_run_tells_what_curves_are_like(search_file: Path, earlier: Path) -> None:
    config = load_search_config(search_file, [f"study.warm_start=[{earlier}]"])[0]
    values_of, text = prior_curves(config)
    assert text == "curves are predicted from the 4 of study.warm_start that lie in the space"
    lasts = [values_of(params)[-1] for params in PARAMS]
    assert lasts == sorted(lasts)
    assert lasts[-1] - lasts[0] > 0.05


def test_a_run_of_another_metric_tells_nothing(search_file: Path, earlier: Path) -> None:
    overrides = [f"study.warm_start=[{earlier}]", "study.objectives=[[val_loss, minimize]]"]
    config = load_search_config(search_file, overrides)[0]
    assert "power laws" in prior_curves(config)[1]


def test_a_run_that_is_gone_is_an_error(search_file: Path) -> None:
    config = load_search_config(search_file, ["study.warm_start=[gone]"])[0]
    with pytest.raises(StudyError, match="not a run folder: gone"):
        prior_curves(config)
