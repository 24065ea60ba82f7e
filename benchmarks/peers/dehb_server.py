"""DEHB 0.1.2 through its ask and tell.

DEHB has no way to begin with a given configuration: the default one replaces the first that it
asks for, and may then enter the population as that one would have. Fidelities are rounded to
epochs. What DEHB itself would deliver is its incumbent, the best value that it was told.
"""

from typing import Any

import ConfigSpace
from dehb import DEHB
from epoch_jobs import EpochJob, EpochJobs
from spaces import config_space
from wire import Params, Settings, serve


class DehbPeer(EpochJobs):
    """DEHB; a configuration is the same training wherever its parameters are the same."""

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

    def recommend(self) -> int | None:
        if self._dehb.inc_config is None:
            return None
        config = self._dehb.vector_to_configspace(self._dehb.inc_config)
        return self.trial_of(_key(dict(config)))

    def _next(self) -> EpochJob:
        job = self._dehb.ask()
        if self._first is not None:
            self._replace(job, self._first)
            self._first = None
        params = dict(job["config"])
        return EpochJob(_key(params), params, round(job["fidelity"]), job)

    def _replace(self, job: dict[str, Any], config: ConfigSpace.Configuration) -> None:
        known = self._dehb.config_repository.configs[job["config_id"]]
        known.config = self._dehb.configspace_to_vector(config)
        job["config"] = config

    def _tell_dehb(self, job: EpochJob, value: float) -> None:
        self._dehb.tell(job.job, {"fitness": -value, "cost": job.until})


def _key(params: Params) -> tuple[Any, ...]:
    return tuple(sorted(params.items()))


serve(DehbPeer)
