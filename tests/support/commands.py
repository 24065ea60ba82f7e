"""Commands called in this process, and runs for them to look at."""

from collections.abc import Callable
from pathlib import Path

from hpo.config.loading import load_search_config
from hpo.config.search_space import Params
from hpo.run_folder import RunFolder
from hpo.simulation.simulation import Curve, SimulatedSearch
from hpo.study.study import SearchStudy

Call = Callable[..., tuple[int, str, str]]


def refused(result: tuple[int, str, str]) -> str:
    """The message of a command that found its input wrong."""
    code, _, err = result
    assert code == 2, err
    assert "Traceback" not in err
    return err


def write_run(folder: Path, search_file: Path, *overrides: str) -> Path:
    """A run folder whose trials have all ended, in no time."""
    config, _ = load_search_config(search_file, overrides, name=folder.name)
    run_folder = RunFolder(folder)
    run_folder.make()
    run_folder.save_config(config)
    study = SearchStudy.create(run_folder.storage_url(config), config.study, config.space)

    def curve(params: Params) -> Curve:
        """Trials rank at each epoch as they do at their end."""
        return Curve([50 * float(params["optimizer.learning_rate"])] * 4, [1.0] * 4)

    SimulatedSearch(config, curve, 1, study).run()
    return folder
