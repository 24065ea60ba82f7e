"""SMAC3 2.4: its multi-fidelity facade (random forest and Hyperband) through its ask and tell.

Its initial design is the default configuration and ten random ones; SMAC's own size, ten for each
parameter, would be most of these searches. Budgets are rounded to epochs. What SMAC itself would
deliver is its incumbent at the highest budget observed.
"""

import logging
import warnings
from pathlib import Path
from typing import Any

import ConfigSpace
from epoch_jobs import EpochJob, EpochJobs
from smac import MultiFidelityFacade, Scenario
from smac.runhistory.dataclasses import TrialValue
from spaces import config_space
from wire import Settings, serve

NUM_RANDOM = 10


class SmacPeer(EpochJobs):
    """SMAC's facade for epochs as budgets."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(self._next, self._tell_smac)
        logging.disable(logging.WARNING)
        warnings.simplefilter("ignore")
        space = config_space(settings)
        scenario = Scenario(
            space, deterministic=True, n_trials=10**6, seed=settings["seed"],
            min_budget=settings["first_rung"], max_budget=settings["max_epochs"],
            output_directory=Path(),
        )  # fmt: skip
        default = ConfigSpace.Configuration(space, values=settings["default"])
        first = [default, *space.sample_configuration(NUM_RANDOM)]
        made = MultiFidelityFacade
        self._smac = made(
            scenario, _no_target, logging_level=False, overwrite=True,
            initial_design=made.get_initial_design(
                scenario, n_configs=0, additional_configs=first
            ),
            intensifier=made.get_intensifier(scenario, eta=settings["reduction_factor"]),
        )  # fmt: skip

    def recommend(self) -> int | None:
        incumbent = self._smac.intensifier.get_incumbent()
        return None if incumbent is None else self.trial_of(incumbent)

    def _next(self) -> EpochJob:
        job = self._smac.ask()
        return EpochJob(job.config, dict(job.config), round(job.budget), job)

    def _tell_smac(self, job: EpochJob, value: float) -> None:
        self._smac.tell(job.job, TrialValue(cost=-value), save=False)


def _no_target(config: Any, seed: int = 0, budget: float = 0.0) -> float:
    raise NotImplementedError("the benchmark trains")


serve(SmacPeer)
