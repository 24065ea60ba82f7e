"""Run: read access to a run, finished or still in progress."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

from hpo.config.schema import SearchConfig
from hpo.errors import StudyError
from hpo.model_files import ModelFiles
from hpo.run_folder import RunFolder
from hpo.selection.finalists import read_verdict, winner_of
from hpo.selection.selection import best_so_far, pareto_front
from hpo.selection.verdict import Verdict
from hpo.study.storage import storage_exists, without_password
from hpo.study.study import SearchStudy
from hpo.study.trial import TrialSummary


@dataclass(frozen=True)
class Run:
    """A snapshot of a run: the trials are read once, at first use, and kept.

    While the search is still in progress, `reload()` returns a new snapshot.

    Attributes:
        folder: Paths of the run's files.
        config: The config of the search, with defaults filled in.
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
        """The finalists' results on fresh seeds, and the winner.

        None until all finalists are trained, and for searches without a comparison
        (`retrain.seeds: 0`, or several objectives).
        """
        return read_verdict(self.config, self.study, self.trials)

    @property
    def best(self) -> TrialSummary | None:
        """The trial with the best value so far among the trials that satisfy the constraints.

        This value is the maximum of many single measurements, so it is biased upwards; rely on
        `winner` instead. None before the first epoch has ended.
        """
        best = best_so_far(self.trials, self.config)
        return None if best is None else best[0]

    @property
    def best_value(self) -> float | None:
        """The metric of the trial `best`; None if `best` is None."""
        best = best_so_far(self.trials, self.config)
        return None if best is None else best[1]

    @property
    def front(self) -> tuple[TrialSummary, ...]:
        """The Pareto front, best metric first; with one objective only the best trial."""
        return pareto_front(self.trials, self.config.study)

    @property
    def winner(self) -> TrialSummary | None:
        """The trial that the search delivers, chosen by the verdict, else by `study.select`."""
        return winner_of(self.config, self.trials, self.verdict)

    @property
    def delivered(self) -> TrialSummary | None:
        """The trial whose model is in best/; None until a model is delivered.

        After `retrain --trial` this trial may differ from `winner`.
        """
        if not self.folder.is_delivered:
            return None
        number = self.study.metadata.delivered_trial
        if number is None:  # delivered by a version that did not store the number
            return self.winner
        return next((trial for trial in self.trials if trial.number == number), None)

    @property
    def files(self) -> ModelFiles:
        """Paths of the delivered model's files, which exist once `is_delivered` is True."""
        return ModelFiles(self.folder.best)

    @property
    def is_delivered(self) -> bool:
        """Whether best/ holds an exported model."""
        return self.folder.is_delivered

    @property
    def is_complete(self) -> bool:
        """Whether the search is finished: model, report and leaderboard exist."""
        return self.folder.is_complete

    def reload(self) -> Self:
        """A new snapshot of the run."""
        return type(self)(self.folder, self.config, self.study)


def open_run(path: Path | str, storage: str | None = None) -> Run:
    """Opens a run, finished or still in progress; changes nothing.

    Args:
        path: The run's folder, such as runs/digits.
        storage: URL of the Optuna storage, needed if the run's own URL lacks a password; None:
            the run's own, by default a file in the run's folder.

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
