from pathlib import Path

import pytest
from made_searches import config_of, curve_of
from studies import create_study

from hpo.selection.calibration import Calibration, calibration
from hpo.simulation.simulation import SimulatedSearch


def test_few_inside_are_too_few_only_where_chance_does_not_explain_them() -> None:
    assert not Calibration(6, 8, 0.8).is_too_sure
    assert Calibration(3, 8, 0.8).is_too_sure
    assert Calibration(18, 30, 0.8).is_too_sure
    assert not Calibration(30, 30, 0.8).is_too_sure


@pytest.mark.parametrize("scheduler", ["freeze_thaw", "asha"])
def test_a_search_whose_surrogate_has_decided_can_be_judged(
    search_file: Path, tmp_path: Path, scheduler: str
) -> None:
    config = config_of(search_file, scheduler)
    study = create_study(f"sqlite:///{tmp_path / 'study.db'}", config)
    assert calibration(study, config, study.trials()) is None
    SimulatedSearch(config, curve_of, 1, study).run()
    found = calibration(study, config, study.trials())
    assert (found is not None) == (scheduler == "freeze_thaw")
    if found is not None:
        assert found.num >= 8
        assert not found.is_too_sure
        assert study.metadata.model_state is not None
        study.metadata.model_state = study.metadata.model_state[1:]  # an earlier version's
        assert calibration(study, config, study.trials()) is None
