"""Optuna's samplers with Ray's asynchronous halving, as users combine the two."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from beds import Task
from efficiency.clock import Work, run_on_clock
from efficiency.jobs import Job, Outcome, Trainings

RUNGS: Final = (4, 12, 36)


def run_stock(job: Job) -> Outcome:
    trainings = Trainings(job)
    return run_on_clock(job, trainings, StockSearch(job.strategy, job.seed, trainings.task))


class StockSearch:
    """One study of Optuna whose trials run alone, or in Ray's asynchronous halving."""

    def __init__(self, strategy: str, seed: int, task: Task) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        name, *parts = strategy.split("+")
        samplers: dict[str, Callable[[], optuna.samplers.BaseSampler]] = {
            "random": lambda: optuna.samplers.RandomSampler(seed=seed),
            "tpe": lambda: optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=5 if "default" in parts else 10
            ),
            "gp": lambda: optuna.samplers.GPSampler(seed=seed),
        }
        self._optuna = optuna
        self._study = optuna.create_study(
            direction="maximize", sampler=samplers[name](), pruner=optuna.pruners.NopPruner()
        )
        if "default" in parts:
            self._study.enqueue_trial(task.default)
        self._tells_pruned = "pruned" in parts
        rungs = RUNGS if "asha" in parts else ()
        self._rungs = {epoch: list[float]() for epoch in rungs}
        self._trials: list[optuna.Trial] = []
        self._max_epochs = task.max_epochs
        self._space = {name: self._distribution(entry) for name, entry in task.space.items()}

    def _distribution(self, entry: Mapping[str, Any]) -> Any:
        kinds = self._optuna.distributions
        if entry["type"] == "categorical":
            return kinds.CategoricalDistribution(entry["choices"])
        kind = kinds.IntDistribution if entry["type"] == "int" else kinds.FloatDistribution
        return kind(entry["low"], entry["high"], log=entry["log"])

    def ask(self) -> Work:
        trial = self._study.ask(self._space)
        self._trials.append(trial)
        return Work(len(self._trials) - 1, dict(trial.params))

    def goes_on(self, number: int, epoch: int, value: float) -> bool:
        trial = self._trials[number]
        if self._tells_pruned:
            trial.report(value, epoch)
        if epoch == self._max_epochs:
            self._study.tell(trial, value)
            return False
        rung = self._rungs.get(epoch)
        if rung is None:
            return True
        stands = not rung or value >= np.percentile(rung, (1 - 1 / 3) * 100)
        rung.append(value)
        if stands:
            return True
        if self._tells_pruned:
            self._study.tell(trial, state=self._optuna.trial.TrialState.PRUNED)
        else:
            self._study.tell(trial, value)
        return False

    def recommended(self) -> None:
        return None
