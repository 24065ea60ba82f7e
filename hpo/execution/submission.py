"""What is sent to a cluster so that a search runs there: its files, requirements and command."""

import hashlib
import shlex
import shutil
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Final

from hpo.execution.pins import Pins

PACKAGES: Final = ("hpo", "sgformer", "search_spaces")
PROGRAM: Final = "from hpo.cli.app import main\n\nmain()\n"
# Ray kills a job 3 seconds after it told it to stop, unless this says otherwise. A search ends as
# soon as what is under way is saved, so these seconds are for one that hangs.
# Source: Ray 2.60, dashboard/modules/job/job_supervisor.py.
STOP_WAIT_VARIABLE: Final = "RAY_JOB_STOP_WAIT_TIME_S"
SECONDS_TO_STOP: Final = 300
# On a node, the folder that is sent, while pip runs.
SENT_FOLDER: Final = "${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}"


@dataclass(frozen=True)
class Submission:
    """A search for a cluster.

    Attributes:
        search_file: The search file on this machine.
        study_name: The name of the study.
        output_dir: The folder of run folders, on all nodes.
        options: Further options of the command `search`.
        pins: What the nodes install beside this package's sources; None: they have this package,
            and only the search file is sent.
    """

    search_file: Path
    study_name: str
    output_dir: Path
    options: tuple[str, ...] = ()
    pins: Pins | None = None

    @property
    def run_dir(self) -> Path:
        """The run's folder, on the nodes."""
        return self.output_dir / self.study_name

    @property
    def entrypoint(self) -> str:
        """The job's shell command; `exec`, so that a stop's signal goes to the search itself."""
        arguments = [
            self.search_file.name,
            *("--study-name", self.study_name, "--output-dir", str(self.output_dir)),
            *self.options,
        ]
        return (
            f"exec python -m run_search search {shlex.join(arguments)} "
            '--ray-address "$RAY_ADDRESS"'
        )

    @property
    def runtime_env(self) -> dict[str, Any]:
        """Ray's runtime_env of the driver and its workers, but for the folder that is sent."""
        env: dict[str, Any] = {"env_vars": {STOP_WAIT_VARIABLE: str(SECONDS_TO_STOP)}}
        if self.pins is not None:
            constraints = f"--constraint {SENT_FOLDER}/{_constraints_name(self.pins)}"
            env["pip"] = {"packages": [constraints, *self.pins.direct]}
        return env

    def write(self, folder: Path) -> None:
        """Writes what is sent into a new folder."""
        folder.mkdir()
        shutil.copyfile(self.search_file, folder / self.search_file.name)
        if self.pins is None:
            return
        (folder / _constraints_name(self.pins)).write_text(_constraints(self.pins), "utf-8")
        (folder / "run_search.py").write_text(PROGRAM, "utf-8")
        for name in PACKAGES:
            with as_file(files(name)) as package:
                no_caches = shutil.ignore_patterns("__pycache__")
                shutil.copytree(package, folder / name, ignore=no_caches)


def job_id(study_name: str, now: datetime) -> str:
    """A job's id that people recognise: the study and the time, such as digits-1129-190618."""
    return f"{study_name}-{now:%m%d-%H%M%S}"


def _constraints(pins: Pins) -> str:
    return "".join(f"{pin}\n" for pin in pins.all)


def _constraints_name(pins: Pins) -> str:
    """A name for each content: Ray reuses an environment whose requirements read the same."""
    digest = hashlib.sha256(_constraints(pins).encode()).hexdigest()
    return f"constraints-{digest[:12]}.txt"
