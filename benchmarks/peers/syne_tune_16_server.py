"""Syne Tune 0.16: stopping ASHA with the searchers CQR and BOHB, with a trial loop of ours."""

import datetime
import logging
import warnings
from typing import Any

import numpy as np
from spaces import syne_tune_space
from syne_tune.backend.trial_status import Trial
from syne_tune.optimizer.baselines import ASHACQR, BOHB
from syne_tune.optimizer.scheduler import SchedulerDecision
from wire import Settings, serve

MADE = {"asha-cqr": ASHACQR, "bohb": BOHB}


class SyneTunePeer:
    """A scheduler of Syne Tune."""

    def __init__(self, settings: Settings) -> None:
        logging.disable(logging.WARNING)
        warnings.simplefilter("ignore")
        np.random.seed(settings["seed"])  # parts of the library draw from it
        self._scheduler = MADE[settings["strategy"]](
            syne_tune_space(settings),
            metric="loss", do_minimize=True, time_attr="epoch", max_t=settings["max_epochs"],
            grace_period=settings["first_rung"], reduction_factor=settings["reduction_factor"],
            random_seed=settings["seed"], points_to_evaluate=[settings["default"]],
        )  # fmt: skip
        self._trials: list[Trial] = []

    def ask(self) -> dict[str, Any]:
        config = self._scheduler.suggest().config
        trial = Trial(len(self._trials), config, datetime.datetime.now())
        self._trials.append(trial)
        self._scheduler.on_trial_add(trial)
        return {"trial": trial.trial_id, "params": config}

    def report(self, number: int, epoch: int, value: float) -> bool:
        trial = self._trials[number]
        decision = self._scheduler.on_trial_result(trial, {"loss": -value, "epoch": epoch})
        if decision == SchedulerDecision.CONTINUE:
            return True
        self._scheduler.on_trial_remove(trial)
        return False

    def recommend(self) -> None:
        return None  # Tuner.best_config is the best value seen


serve(SyneTunePeer)
