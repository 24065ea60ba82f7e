"""Ray Tune's Searcher, over the study: passes Ray's hooks on to the decisions."""

import logging
from typing import Any

from ray.tune.search import Searcher

from hpo.decisions import Decisions
from hpo.trial import REPORT
from hpo.trial_report import TrialError

logger = logging.getLogger(__name__)


class StudySearcher(Searcher):
    """Asks the study for trials and tells it their ends.

    An exception in a hook would tear down Ray's experiment, so it is kept in `failure`, which
    stops the search in an orderly way.

    Args:
        decisions: Decides what runs.
        trial_config: From number and params to Ray's config of the trial.
    """

    def __init__(self, decisions: Decisions, trial_config: Any) -> None:
        super().__init__()
        self._decisions, self._trial_config = decisions, trial_config
        self._numbers: dict[str, int] = {}
        self.last_errors: dict[int, TrialError] = {}
        self.failure: Exception | None = None

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        try:
            if self.failure or self._decisions.finished:
                return Searcher.FINISHED
            proposal = self._decisions.next_trial()
            if proposal is None:
                return None
            config: dict[str, Any] = self._trial_config(proposal.number, proposal.params)
            self._numbers[trial_id] = proposal.number
        except Exception as error:  # noqa: BLE001
            self.keep(error)
            return Searcher.FINISHED
        else:
            return config

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        number = self._numbers[trial_id]
        try:
            if error or result is None or REPORT not in result:
                lost = TrialError("WorkerLost", "the trial's process ended without a word")
                self._decisions.on_lost(number, self.last_errors.get(number, lost))
            else:
                self._decisions.on_end(result[REPORT])
        except Exception as error_in_hook:  # noqa: BLE001
            self.keep(error_in_hook)

    def keep(self, error: Exception) -> None:
        """Remembers the first exception of a hook."""
        logger.debug("a hook of the search failed", exc_info=error)
        self.failure = self.failure or error

    # The study is the memory; Ray's snapshots of the searcher have nothing to hold.
    def save(self, checkpoint_path: str) -> None:
        pass

    def restore(self, checkpoint_path: str) -> None:
        pass

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        pass
