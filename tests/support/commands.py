"""Helpers for tests that call commands in this process, and runs for these commands."""

from collections.abc import Callable
from pathlib import Path

from hpo.config.loading import load_search_config
from hpo.config.search_space import Params
from hpo.run_folder import RunFolder
from hpo.simulation.simulation import Curve, SimulatedSearch
from hpo.study.study import SearchStudy

Call = Callable[..., tuple[int, str, str]]


def refused(result: tuple[int, str, str]) -> str:
    """The error message of a command that refused its input (exit code 2)."""
    code, _, err = result
    assert code == 2, err
    assert "Traceback" not in err
    return err


def write_run(folder: Path, search_file: Path, *overrides: str) -> Path:
    """Writes a run folder whose trials have all ended, by a simulated search."""
    config, _ = load_search_config(search_file, overrides, name=folder.name)
    run_folder = RunFolder(folder)
    run_folder.make()
    run_folder.save_config(config)
    study = SearchStudy.create(run_folder.storage_url(config), config.study, config.space)

    def curve(params: Params) -> Curve:
        """A learning curve; trials have the same ranks at every epoch."""
        return Curve([50 * float(params["optimizer.learning_rate"])] * 4, [1.0] * 4)

    SimulatedSearch(config, curve, 1, study).run()
    return folder
