"""Our own searches: the decisions of hpo/ on its simulator, one search for each budget."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Final

from beds import Array, Params, Task, regret, task_names
from efficiency.jobs import Job, Outcome, Trainings

NUM_AFTER: Final = 12  # default number of finalists' trainings after a search; not measured here


class OurSearch:
    """One search with hpo's decisions, and a budget counted in full trainings."""

    def __init__(self, job: Job, budget: int, warm_start: Sequence[Params] = ()) -> None:
        import hpo.simulation.simulation
        from hpo.study.study import SearchStudy

        self._job, self._trainings = job, Trainings(job)
        self.task = self._trainings.task
        default = self.task.default
        # TrainConfig has no defaults for this space, whose parameters are not its settings.
        hpo.simulation.simulation.default_params = lambda train, space: dict(default)
        self.true_values: list[Array] = []
        self.params: list[Params] = []
        self._config = config = our_config(job, self.task, budget)
        study = SearchStudy.in_memory(config.study, config.space)
        study.metadata.warm_start = warm_start
        self.search = hpo.simulation.simulation.SimulatedSearch(
            config, self._curve, job.workers, study
        )

    def _curve(self, params: Params) -> Any:
        from hpo.simulation.simulation import Curve

        values, observed, cost = self._trainings.curve(params)
        self.true_values.append(values)
        self.params.append(dict(params))
        return Curve(observed.tolist(), cost.tolist())

    def run(self, budget: int) -> None:
        """Runs the search to its end; with the clock of seconds, at most until the budget ends."""
        search, is_timed = self.search, self._job.clock == "seconds"
        while not (is_timed and search.seconds >= self.task.max_epochs * budget) and search.step():
            pass

    def ranking(self) -> tuple[int, ...]:
        """Numbers of trials, the best predicted final value first."""
        from hpo.selection.ranking import predicted_ranking

        study = self.search.study
        trials = study.trials()
        return predicted_ranking(
            self._config, trials, study.metadata.model_state, study.metadata.first_levels
        )

    def best_seen(self) -> int:
        """The number of the trial with the best value observed."""
        known = [trial for trial in self.search.study.trials() if trial.curve]
        return max(known, key=lambda trial: max(trial.curve.values())).number

    def regret(self, number: int) -> float:
        return regret(self.task, self.true_values[number])


def our_config(job: Job, task: Task, budget: int) -> Any:
    from hpo.config.schema import SearchConfig

    variant = job.strategy.removeprefix("ours").removeprefix("-").replace("-", "_")
    scheduler = "freeze_thaw" if variant in {"", "warm", "cost"} else variant
    return SearchConfig.model_validate(
        {
            "study": {"name": "simulated", "seed": job.seed, "num_trials": 10**6},
            "scheduler": {"name": scheduler, "cost_aware": variant == "cost"},
            **our_budget(job.clock, task.max_epochs * budget, task.max_epochs),
            "space": task.space,
            "train": {"max_epochs": task.max_epochs},
        }
    )  # fmt: skip


def our_budget(clock: str, num_epochs: int, max_epochs: int) -> dict[str, Any]:
    """Settings that give the search `num_epochs`, besides the reserve for finalists."""
    if clock == "epochs":
        reserved = max_epochs * NUM_AFTER
        return {"budget": {"total_epochs": num_epochs + reserved}, "retrain": {"max_share": None}}
    # A simulated second is a mean epoch of the default configuration. The reserve in seconds would
    # depend on the finalists, so retrainings last one epoch; `run` ends the search at its budget.
    hours = (num_epochs + NUM_AFTER) / 3600
    return {"budget": {"gpu_hours": hours}, "retrain": {"max_epochs": 1, "max_share": None}}


def run_ours(job: Job) -> Outcome:
    """Runs one search for each budget, since our search plans with its budget."""
    regrets, losses, seen = {}, {}, dict[int, float]()
    seconds, num_trials, delivered = list[float](), 0, dict[int, Params]()
    warm_start = best_of_another_task(job) if job.strategy == "ours-warm" else ()
    for budget in job.budgets:
        ours = OurSearch(job, budget, warm_start)
        ours.run(budget)
        best = ours.ranking()[0]
        regrets[budget], delivered[budget] = ours.regret(best), ours.params[best]
        seen[budget] = ours.regret(ours.best_seen())
        losses[budget] = regrets[budget] - min(ours.regret(0), seen[budget])
        seconds += ours.search.decision_seconds
        num_trials = len(ours.true_values)
    others = {"best value seen": seen}
    return Outcome(regrets, losses, seconds, num_trials, others, delivered)


def best_of_another_task(job: Job) -> tuple[Params, ...]:
    """The configurations of study.warm_start after a search of the previous task (budget 10)."""
    from hpo.transfer.warm_start import different

    every = task_names(job.bed, job.data, "all")
    before = dataclasses.replace(
        job, task=every[every.index(job.task) - 1], strategy="ours", seed=job.seed + 1000
    )
    earlier = OurSearch(before, 10)
    earlier.search.run()
    params = {trial.number: dict(trial.params) for trial in earlier.search.study.trials()}
    ranking = [params[number] for number in earlier.ranking()]
    config = our_config(job, earlier.task, 10)
    return different(config.space, earlier.task.default, [ranking])
