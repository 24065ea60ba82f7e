"""Syne Tune 0.13: promotion ASHA, PASHA, MOBSTER, HyperTune and DyHPO, with a trial loop of ours.

The calls are those of syne_tune.Tuner. The surrogates of MOBSTER, HyperTune and DyHPO are refitted
at every third decision from 50 rows on (the library: at every one, DyHPO every third from 150 on).
"""

import datetime
import logging
import warnings
from typing import Any

import numpy as np
from spaces import syne_tune_space
from syne_tune.backend.trial_status import Trial
from syne_tune.optimizer.baselines import ASHA, MOBSTER, PASHA, DyHPO, HyperTune
from syne_tune.optimizer.scheduler import SchedulerDecision
from wire import Settings, serve

FASTER = {"search_options": {"opt_skip_init_length": 50, "opt_skip_period": 3, "debug_log": False}}
MADE = {
    "asha-promotion": (ASHA, {"type": "promotion"}),
    "pasha": (PASHA, {}),
    "mobster": (MOBSTER, {"type": "promotion"} | FASTER),
    "hypertune": (HyperTune, {"type": "promotion", "brackets": 4} | FASTER),
    "dyhpo": (DyHPO, FASTER),
}


class SyneTunePeer:
    """A scheduler of Syne Tune."""

    def __init__(self, settings: Settings) -> None:
        logging.disable(logging.WARNING)
        warnings.simplefilter("ignore")
        np.random.seed(settings["seed"])  # parts of the library draw from it
        made, options = MADE[settings["strategy"]]
        rungs = {"grace_period": settings["first_rung"]}
        if settings["strategy"] != "dyhpo":  # its rungs lie two epochs apart
            rungs["reduction_factor"] = settings["reduction_factor"]
        space = syne_tune_space(settings)
        self._max_epochs = settings["max_epochs"]
        self._names = list(space)
        self._scheduler = made(
            space | {"epochs": self._max_epochs}, metric="loss", mode="min",
            resource_attr="epoch", max_resource_attr="epochs",
            random_seed=settings["seed"], points_to_evaluate=[settings["default"]],
            **rungs, **options,
        )  # fmt: skip
        self._trials: list[Trial] = []

    def ask(self) -> dict[str, Any]:
        number = len(self._trials)
        suggestion = self._scheduler.suggest(trial_id=number)
        if not suggestion.spawn_new_trial_id:
            return {"trial": int(suggestion.checkpoint_trial_id)}
        trial = Trial(number, suggestion.config, datetime.datetime.now())
        self._trials.append(trial)
        self._scheduler.on_trial_add(trial)
        return {"trial": number, "params": {n: suggestion.config[n] for n in self._names}}

    def report(self, number: int, epoch: int, value: float) -> bool:
        trial, result = self._trials[number], {"loss": -value, "epoch": epoch}
        decision = self._scheduler.on_trial_result(trial, result)
        if decision != SchedulerDecision.CONTINUE:
            self._scheduler.on_trial_remove(trial)
            return False
        if epoch == self._max_epochs:
            self._scheduler.on_trial_complete(trial, result)
        return True

    def recommend(self) -> None:
        return None  # Tuner.best_config is the best value seen


serve(SyneTunePeer)
