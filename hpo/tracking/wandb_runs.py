"""Runs of Weights & Biases: a run a trial, in a group, and one for the result of the search."""

import csv
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hpo.config.schema import SearchConfig
from hpo.model_files import ModelFiles
from hpo.run_folder import RunFolder
from hpo.study.trial import TrialStatus
from hpo.tracking.tracker import News, Sent, need_package, numbers_of
from sgformer.errors import InputError

if TYPE_CHECKING:
    from hpo.run import Run
    from hpo.tracking.search_end import SearchEnd

OPTION: Final = "--wandb"
PROJECT: Final = "sgformer-hpo"  # unless WANDB_PROJECT names another
OFF_LINE: Final = ("offline", "dryrun", "disabled")
SEARCH: Final = "search"
# Beside what is logged, wandb would send the command line, git remotes and the packages.
SETTINGS: Final = {
    "silent": True,
    "console": "off",
    "disable_git": True,
    "save_code": False,
    "x_disable_stats": True,
    "x_disable_meta": True,
    "x_save_requirements": False,
}


class WandbRuns:
    """Logs a search to Weights & Biases, or with WANDB_MODE=offline into the run's folder.

    A trial keeps the id of its run, so a resumed search goes on with it. Files of runs that were
    offline cannot be asked what they hold, so RUN/wandb/sent.csv notes it.
    """

    name: str = "Weights & Biases"
    option: str = OPTION

    def __init__(self, config: SearchConfig, folder: RunFolder) -> None:
        self._config, self._run_folder = config, folder
        self._folder = folder.path / "wandb"
        self._runs: dict[int, Any] = {}

    def check(self) -> None:
        need_package("wandb", "wandb", OPTION)
        RunFolder(self._folder).check_writable()
        if os.environ.get("WANDB_MODE", "online") in OFF_LINE:
            return
        import wandb

        if not wandb.api.api_key:
            raise InputError(
                f"{OPTION}: Weights & Biases has no API key here: run `wandb login`, set "
                "WANDB_API_KEY, or log into files with WANDB_MODE=offline"
            )

    def begin(self) -> dict[int, Sent]:
        self._folder.mkdir(parents=True, exist_ok=True)
        if not self._sent_file.exists():
            return {}
        with self._sent_file.open(encoding="utf-8", newline="") as file:
            return {int(n): Sent(int(epoch), end == "1") for n, epoch, end in csv.reader(file)}

    def send(self, number: int, news: News) -> None:
        run = self._runs.get(number)
        if run is None:
            run = self._runs[number] = self._open(str(number), "trial", dict(news.params))
        for row in news.rows:
            run.log(numbers_of(row), step=int(row["epoch"]))
        run.summary["state"] = "paused" if news.is_paused else "running"
        if news.end is not None:
            run.summary["state"], run.summary["end_reason"] = news.end.state, news.end.reason
            run.summary[f"best_{self._config.study.metric}"] = news.end.value
            run.finish(exit_code=int(news.end.state == TrialStatus.FAIL))
            del self._runs[number]
        self._note_sent(number, news)

    def finish(self, end: "SearchEnd", run: "Run") -> None:
        import wandb

        mine = self._open(SEARCH, SEARCH, self._config.model_dump(mode="json"))
        mine.summary.update(end.as_json())
        best = ModelFiles(self._run_folder.best)
        report = self._run_folder.report
        if report.is_file():
            mine.log({"report": wandb.Html(report.read_text(encoding="utf-8"), inject=False)})
        if best.is_delivered:
            model = wandb.Artifact(f"{self._config.study.name}-model", type="model")
            for path in filter(Path.is_file, best.folder.iterdir()):
                model.add_file(str(path))
            mine.log_artifact(model)
        mine.finish(exit_code=int(end.state == "failed"))

    def close(self) -> None:
        for run in self._runs.values():
            run.finish()
        self._runs.clear()

    @property
    def _sent_file(self) -> Path:
        return self._folder / "sent.csv"

    def _open(self, trial: str, kind: str, config: dict[str, Any]) -> Any:
        import wandb

        study = self._config.study.name
        return wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            group=study,
            job_type=kind,
            name=study if kind == SEARCH else f"trial-{trial}",
            id=f"{self._run_folder.mark()[:16]}-{trial}",
            config=config,
            dir=str(self._run_folder.path),
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(**SETTINGS),
        )

    def _note_sent(self, number: int, news: News) -> None:
        """Appends what the trial's run has now; the last line of a trial counts."""
        if news.rows or news.end is not None:
            with self._sent_file.open("a", encoding="utf-8", newline="") as file:
                csv.writer(file).writerow([number, news.num_epochs, int(news.end is not None)])
