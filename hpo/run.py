"""Run: a finished or a living run, opened to be looked at."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

from hpo.config.schema import SearchConfig
from hpo.errors import StudyError
from hpo.run_folder import ModelFiles, RunFolder
from hpo.selection.finalists import read_verdict, winner_of
from hpo.selection.selection import best_so_far, pareto_front
from hpo.selection.verdict import Verdict
from hpo.study.storage import storage_exists, without_password
from hpo.study.study import SearchStudy
from hpo.study.trial import TrialSummary


@dataclass(frozen=True)
class Run:
    """A run as it was when it was first asked about: its attributes are of one moment.

    While the search still works, `reload()` gives the run as it is by then.

    Attributes:
        folder: The names of the run's files.
        config: The search's whole configuration, defaults filled in.
        study: Reads and writes the Optuna study.
    """

    folder: RunFolder
    config: SearchConfig
    study: SearchStudy

    @cached_property
    def trials(self) -> tuple[TrialSummary, ...]:
        """All trials that have started, by their numbers from 0 on."""
        return self.study.trials()

    @cached_property
    def verdict(self) -> Verdict | None:
        """What the finalists reached on fresh seeds, and which one won.

        None while they are not chosen or not all trained, and where nothing is compared
        (`retrain.seeds: 0`, several objectives).
        """
        return read_verdict(self.config, self.study, self.trials)

    @property
    def best(self) -> TrialSummary | None:
        """The trial with the best value so far among those that keep to the constraints.

        It is the best of many by one measurement each, so chance has helped it; `winner` is the
        one to trust. None before the first epoch has ended.
        """
        best = best_so_far(self.trials, self.config)
        return None if best is None else best[0]

    @property
    def best_value(self) -> float | None:
        """The value of `best` by the study's metric; None without one."""
        best = best_so_far(self.trials, self.config)
        return None if best is None else best[1]

    @property
    def front(self) -> tuple[TrialSummary, ...]:
        """The Pareto front, the best by the metric first; with one objective, the best trial."""
        return pareto_front(self.trials, self.config.study)

    @property
    def winner(self) -> TrialSummary | None:
        """The trial that the search delivers: the verdict's, or the one of `study.select`."""
        return winner_of(self.config, self.trials, self.verdict)

    @property
    def delivered(self) -> TrialSummary | None:
        """The trial whose configuration `files` were trained with; None before they are there.

        It differs from `winner` after `retrain --trial`.
        """
        if not self.folder.is_delivered:
            return None
        number = self.study.metadata.delivered_trial
        if number is None:  # of a version that did not note it
            return self.winner
        return next((trial for trial in self.trials if trial.number == number), None)

    @property
    def files(self) -> ModelFiles:
        """Paths of the delivered model's files; they exist once `is_delivered`."""
        return ModelFiles(self.folder.best)

    @property
    def is_delivered(self) -> bool:
        """Whether best/ holds an exported model."""
        return self.folder.is_delivered

    @property
    def is_complete(self) -> bool:
        """Whether the search has come to its end: model, report and leaderboard are there."""
        return self.folder.is_complete

    def reload(self) -> Self:
        """The run as it is now."""
        return type(self)(self.folder, self.config, self.study)


def open_run(path: Path | str, storage: str | None = None) -> Run:
    """Opens a finished run, or one whose search still works; nothing is changed.

    Args:
        path: The run's folder, such as runs/digits.
        storage: URL of the Optuna storage where the run's own lacks a password; None: the
            run's own, which is a file in its folder unless it was started with another.

    Raises:
        StudyError: The folder holds no run, or its study is gone.

    Example:
        ```python
        from hpo import open_run

        run = open_run("runs/digits")
        print(f"{len(run.trials)} trials, complete: {run.is_complete}")
        for trial in run.trials:
            print(trial.number, trial.state, trial.num_epochs, trial.value, trial.params)
        if run.winner is not None:
            print(f"winner: trial {run.winner.number}, model: {run.files.onnx}")
        ```
    """
    folder = RunFolder(Path(path))
    config = folder.load_config()
    url = folder.storage_url(config, storage)
    if not storage_exists(url):
        raise StudyError(f"the study of {folder.path} is gone: no file {without_password(url)}")
    return Run(folder, config, SearchStudy.open(url, config.study, config.space))
