"""Ray Tune's TrialScheduler, over the study: passes each epoch on to the decisions."""

from pathlib import Path
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from hpo.decisions import Decisions
from hpo.searcher import StudySearcher
from hpo.trial import REPORT
from hpo.trial_report import TrialError


class StudyScheduler(FIFOScheduler):
    """Writes each epoch to the study, then asks whether the trial goes on.

    Ray calls the scheduler before the searcher, so the study hears of an epoch here.
    """

    def __init__(self, decisions: Decisions, searcher: StudySearcher) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._decisions, self._searcher = decisions, searcher

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        try:
            goes_on = self._decisions.on_report(result[REPORT])
        except Exception as error:  # noqa: BLE001  would tear down Ray's experiment
            self._searcher.keep(error)
            goes_on = True
        return TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        if trial.error_file and Path(trial.error_file).is_file():
            text = Path(trial.error_file).read_text(encoding="utf-8")
            self._searcher.last_errors[trial.config["number"]] = _last_error(text)


def _last_error(text: str) -> TrialError:
    """From Ray's error file: one block a failure, headed 'Failure # ...'."""
    message = text.rpartition("Failure # ")[2].partition("\n")[2].strip()
    lines = message.splitlines() or ["no reason was given"]
    # A traceback of a worker's own ends with what matters; Ray's words begin with it.
    return TrialError("WorkerLost", lines[-1] if "ray::" in lines[0] else lines[0], message)
