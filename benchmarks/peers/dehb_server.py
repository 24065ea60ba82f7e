"""DEHB 0.1.2 through its ask and tell.

DEHB has no way to begin with a given configuration: the default one replaces the first that it
asks for, and may then enter the population as that one would have. Fidelities are rounded to
epochs. What DEHB itself would deliver is its incumbent, the best value that it was told.
"""

from typing import Any

import ConfigSpace
import numpy as np
from dehb import DEHB
from epoch_jobs import EpochJob, EpochJobs
from spaces import config_space
from wire import Settings, serve

EDGE = 1e-9


class DehbPeer(EpochJobs):
    """DEHB; it gives the id of a configuration again where it promotes it."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(self._next, self._tell_dehb)
        space = config_space(settings)
        self._dehb = DEHB(
            cs=space, f=None, dimensions=len(settings["space"]), n_workers=1,
            min_fidelity=settings["first_rung"], max_fidelity=settings["max_epochs"],
            eta=settings["reduction_factor"], seed=settings["seed"], save_freq=None,
            output_path=".", log_level="ERROR",
        )  # fmt: skip
        self._first: ConfigSpace.Configuration | None = ConfigSpace.Configuration(
            space, values=settings["default"]
        )
        self._best: int | None = None

    def recommend(self) -> int | None:
        return None if self._best is None else self.trial_of(self._best)

    def _next(self) -> EpochJob:
        job = self._dehb.ask()
        if self._first is not None:
            self._replace(job, self._first)
            self._first = None
        return EpochJob(job["config_id"], dict(job["config"]), round(job["fidelity"]), job)

    def _replace(self, job: dict[str, Any], config: ConfigSpace.Configuration) -> None:
        # DEHB rounds a value at the edge of its range to one beyond it, and then refuses that.
        vector = np.clip(self._dehb.configspace_to_vector(config), EDGE, 1 - EDGE)
        self._dehb.config_repository.configs[job["config_id"]].config = vector
        job["config"] = config

    def _tell_dehb(self, job: EpochJob, value: float) -> None:
        if -value < self._dehb.inc_score:
            self._best = job.key
        self._dehb.tell(job.job, {"fitness": -value, "cost": job.until})


serve(DehbPeer)
