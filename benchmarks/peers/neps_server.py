"""NePS 0.17: PriorBand on Hyperband, and asynchronous Hyperband, through its ask and tell.

The default configuration is PriorBand's prior, of medium confidence, and the first sample of both.
NePS resumes by the number that begins a trial's id.
"""

import logging
import random
import warnings
from typing import Any

import neps
import numpy as np
import torch
from epoch_jobs import EpochJob, EpochJobs
from wire import Settings, serve

FIDELITY = "epochs"


class NepsPeer(EpochJobs):
    """An algorithm of NePS."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(self._next, self._tell_neps)
        logging.disable(logging.WARNING)
        warnings.simplefilter("ignore")
        for seeded in (random.seed, np.random.seed, torch.manual_seed):
            seeded(settings["seed"])
        torch.set_num_threads(1)
        space, options = _space(settings), {"eta": settings["reduction_factor"]}
        if settings["strategy"] == "priorband":
            made = neps.algorithms.priorband(space, sample_prior_first=True, **options)
        else:
            made = neps.algorithms.async_hb(space, sample_prior_first=True, **options)
        self._neps = neps.AskAndTell(made)

    def recommend(self) -> None:
        return None  # its ask and tell has no such rule

    def _next(self) -> EpochJob:
        trial = self._neps.ask()
        params = dict(trial.config)
        until = round(params.pop(FIDELITY))
        return EpochJob(trial.id.partition("_rung_")[0], params, until, trial)

    def _tell_neps(self, job: EpochJob, value: float) -> None:
        self._neps.tell(job.job, -value)


def _space(settings: Settings) -> neps.SearchSpace:
    first_rung, max_epochs = settings["first_rung"], settings["max_epochs"]
    parameters: dict[str, Any] = {
        FIDELITY: neps.HPOInteger(first_rung, max_epochs, is_fidelity=True)
    }
    for name, entry in settings["space"].items():
        prior = {"prior": settings["default"][name], "prior_confidence": "medium"}
        if entry["type"] == "categorical":
            parameters[name] = neps.HPOCategorical(entry["choices"], **prior)
            continue
        made = neps.HPOInteger if entry["type"] == "int" else neps.HPOFloat
        parameters[name] = made(entry["low"], entry["high"], log=entry["log"], **prior)
    return neps.SearchSpace(parameters)


serve(NepsPeer)
