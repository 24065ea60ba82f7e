"""Regret of the configuration that a search delivers, by budget: ours against Optuna with ASHA.

    python benchmarks/search_efficiency.py --bed lcbench --data ../shared/surrogates/lcbench
        [--split develop|report] [--workers 1,8,64] [--seeds 5] [--strategies ours,tpe+asha,...]
        [--clock epochs|seconds] [--noise 0.5] [--budget 40] [--output FILE.json]
        [--plot FILE.html] [--kept FILE.jsonl] [--measures]

Searches run on a bed of beds.py with a simulated clock. A budget counts full trainings over all
workers: max_epochs epochs, or with `--clock seconds` the time of the default configuration's.
Regret is (best - delivered) / (best - median); beds.py says of what. `lost` is the worst search's
loss by its choice: its regret less that of the default or of the best value it saw. `--measures`
adds mean regrets of the same trials' last and best epoch and on test, each with the papers'
(best - delivered) / (best - min), too. A bed whose noise is recorded has it; --noise adds to it.

`ours` runs the decisions of hpo/, one search a budget, because our search plans with its budget,
and delivers the trial with the best predicted final value. `ours-NAME` uses scheduler NAME,
`ours-warm` a warm start from another task, `ours-cost` scheduler.cost_aware. Stock strategies know
no budget and deliver the trial with the best value seen. No side pays for training what it
delivers. `SAMPLER+asha` is Ray's asynchronous halving (rungs 4, 12, 36) with Optuna's sampler; as
with OptunaSearch, every trial is told COMPLETE with its last value (`+pruned`: told PRUNED with
its curve). `+default` tries the default configuration first.

A full run takes hours, mostly in Optuna's GPSampler. Finished searches are kept in FILE.jsonl and
not repeated by the same command; remove the file after changing the code.
"""

import argparse
import contextlib
import dataclasses
import functools
import heapq
import itertools
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

# Each run uses one core. These variables must be set before NumPy is imported.
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from beds import TASKS, Array, Params, Task, load_task, regret, regret_by, task_names

BUDGETS: Final = (5, 10, 20, 40)
NUM_AFTER: Final = 12  # default number of finalists' trainings after a search; not measured here
STOCK: Final = (
    "random+asha", "tpe", "tpe+asha", "tpe+asha+default", "tpe+asha+pruned+default",
    "gp+asha", "gp+asha+default",
)  # fmt: skip
OURS: Final = ("ours", "ours-asha", "ours-asha-promotion", "ours-hyperband", "ours-median")
STRATEGIES: Final = (*OURS, *STOCK)


@dataclass(frozen=True)
class Job:
    """The settings of one simulated search."""

    strategy: str
    bed: str
    data: Path
    task: str
    seed: int
    workers: int
    noise: float
    clock: str
    budgets: tuple[int, ...]


@dataclass(frozen=True)
class Outcome:
    """What one search came to.

    Attributes:
        regrets: By budget, of what is delivered.
        losses: By budget, how much larger that regret is than that of the default configuration or
            of the trial with the best value seen, whichever is smaller.
        decision_seconds: How long each decision took.
        num_trials: How many trials were started.
        delivered: By budget, the configuration that is delivered.
    """

    regrets: dict[int, float]
    losses: dict[int, float]
    decision_seconds: list[float]
    num_trials: int
    delivered: dict[int, Params] = field(default_factory=dict)


class Trainings:
    """The trainings of one search: true curves, noisy observations and costs."""

    def __init__(self, job: Job) -> None:
        self.task = load_task(job.bed, job.data, job.task)
        self._rng = np.random.default_rng([job.seed, 1])
        self._noise = job.noise
        _, seconds = self.task.curve(self.task.default)
        self._mean_seconds = None if job.clock == "epochs" else float(seconds.mean())

    def curve(self, params: Params) -> tuple[Array, Array, Array]:
        """True values, observed values and costs (in default epochs) of each epoch, each (n,)."""
        values, seconds = self.task.curve(params)
        costs = np.ones(len(values))
        if self._mean_seconds is not None:
            costs = seconds / self._mean_seconds
        observed = values + self.task.noise(self._rng)
        return values, observed + self._rng.normal(0.0, self._noise, len(values)), costs


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
    regrets, losses, delivered, seconds, num_trials = {}, {}, {}, list[float](), 0
    warm_start = best_of_another_task(job) if job.strategy == "ours-warm" else ()
    for budget in job.budgets:
        ours = OurSearch(job, budget, warm_start)
        ours.run(budget)
        best = ours.ranking()[0]
        regrets[budget], delivered[budget] = ours.regret(best), ours.params[best]
        losses[budget] = regrets[budget] - min(ours.regret(0), ours.regret(ours.best_seen()))
        seconds += ours.search.decision_seconds
        num_trials = len(ours.true_values)
    return Outcome(regrets, losses, seconds, num_trials, delivered)


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


class StockSearch:
    """Optuna's sampler with Ray's asynchronous halving, as users combine the two."""

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
        self._rungs: dict[int, list[float]] = {4: [], 12: [], 36: []} if "asha" in parts else {}
        self._trials: list[optuna.Trial] = []
        self._max_epochs = task.max_epochs
        self._space = {name: self._distribution(entry) for name, entry in task.space.items()}

    def _distribution(self, entry: Mapping[str, Any]) -> Any:
        kinds = self._optuna.distributions
        if entry["type"] == "categorical":
            return kinds.CategoricalDistribution(entry["choices"])
        kind = kinds.IntDistribution if entry["type"] == "int" else kinds.FloatDistribution
        return kind(entry["low"], entry["high"], log=entry["log"])

    def ask(self) -> Params:
        trial = self._study.ask(self._space)
        self._trials.append(trial)
        return dict(trial.params)

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


class StockRun:
    """A stock search on a simulated clock; delivers the trial with the best value seen."""

    def __init__(self, job: Job) -> None:
        self.trainings = Trainings(job)
        self._search = StockSearch(job.strategy, job.seed, self.trainings.task)
        self.curves: list[tuple[Array, Array, Array]] = []
        self.params: list[Params] = []
        self._epochs: list[int] = []
        self._queue: list[tuple[float, int, int]] = []
        self._order = itertools.count()
        self.decision_seconds: list[float] = []
        self.spent, self.best, self._best_value = 0.0, 0, -np.inf
        for _ in range(job.workers):
            self._start(0.0)

    def step(self) -> None:
        now, _, number = heapq.heappop(self._queue)
        self._epochs[number] += 1
        epoch = self._epochs[number]
        _, observed, costs = self.curves[number]
        self.spent += costs[epoch - 1]
        value = float(observed[epoch - 1])
        if value > self._best_value:
            self.best, self._best_value = number, value
        if self._search.goes_on(number, epoch, value):
            self._train(number, now)
        else:
            self._start(now)

    def _start(self, now: float) -> None:
        begin = time.perf_counter()
        params = self._search.ask()
        self.decision_seconds.append(time.perf_counter() - begin)
        self.params.append(params)
        self.curves.append(self.trainings.curve(params))
        self._epochs.append(0)
        self._train(len(self.curves) - 1, now)

    def _train(self, number: int, now: float) -> None:
        end = now + self.curves[number][2][self._epochs[number]]
        heapq.heappush(self._queue, (end, next(self._order), number))


def run_stock(job: Job) -> Outcome:
    run = StockRun(job)
    task = run.trainings.task
    regrets, losses = dict[int, float](), dict[int, float]()
    delivered = dict[int, Params]()
    default, _ = task.curve(task.default)
    for budget in job.budgets:
        while run.spent < task.max_epochs * budget:
            run.step()
        regrets[budget] = regret(task, run.curves[run.best][0])
        losses[budget] = max(0.0, regrets[budget] - regret(task, default))
        delivered[budget] = run.params[run.best]
    return Outcome(regrets, losses, run.decision_seconds, len(run.curves), delivered)


def run(job: Job) -> Outcome:
    return (run_ours if job.strategy.startswith("ours") else run_stock)(job)


def run_all(jobs: Sequence[Job], pool: Any, kept: Path | None) -> list[Outcome]:
    """The outcome of each job, from the file `kept` if it is there; new outcomes are appended."""
    known = dict(read_kept(kept))
    missing = [job for job in jobs if key_of(job) not in known]
    for job, outcome in pool.imap_unordered(run_one, missing):
        known[key_of(job)] = outcome
        if kept is not None:
            with kept.open("a") as file:
                # Begins with a newline: the last line may have been cut by a kill.
                file.write("\n" + json.dumps([key_of(job), dataclasses.asdict(outcome)]))
    return [known[key_of(job)] for job in jobs]


def run_one(job: Job) -> tuple[Job, Outcome]:
    return job, run(job)


def key_of(job: Job) -> str:
    return json.dumps(dataclasses.asdict(job) | {"data": job.data.resolve().name})


def read_kept(kept: Path | None) -> Iterator[tuple[str, Outcome]]:
    for line in kept.read_text().splitlines() if kept is not None and kept.exists() else ():
        with contextlib.suppress(json.JSONDecodeError):  # a kill has cut this line
            key, outcome = json.loads(line)
            for name in ("regrets", "losses", "delivered"):
                by_budget = outcome.get(name, {})
                outcome[name] = {int(budget): value for budget, value in by_budget.items()}
            yield key, Outcome(**outcome)


def summarise(
    strategy: str, workers: int, jobs: list[Job], outcomes: list[Outcome]
) -> Iterator[dict[str, Any]]:
    """One row for each budget; its standard error is computed from the tasks' mean regrets."""
    times = [s for outcome in outcomes for s in outcome.decision_seconds]
    for budget in jobs[0].budgets:
        by_task: dict[str, list[float]] = {}
        for job, outcome in zip(jobs, outcomes, strict=True):
            by_task.setdefault(job.task, []).append(outcome.regrets[budget])
        means = [statistics.fmean(regrets) for regrets in by_task.values()]
        every = [regret for regrets in by_task.values() for regret in regrets]
        yield {
            "strategy": strategy,
            "workers": workers,
            "budget": budget,
            "mean": statistics.fmean(means),
            "median": statistics.median(every),
            "se": statistics.stdev(means) / len(means) ** 0.5 if len(means) > 1 else 0.0,
            "worst_loss": max(outcome.losses[budget] for outcome in outcomes),
            "by_task": {task: statistics.fmean(regrets) for task, regrets in by_task.items()},
            "decision_ms_p50": float(np.percentile(times, 50)) * 1000,
            "decision_ms_p99": float(np.percentile(times, 99)) * 1000,
            "num_trials": statistics.fmean(outcome.num_trials for outcome in outcomes),
        }


def measures(jobs: list[Job], outcomes: list[Outcome]) -> Iterator[dict[str, Any]]:
    """One row for each budget and measure of beds.regret_by: the mean over tasks and seeds."""
    known = functools.cache(lambda name: load_task(jobs[0].bed, jobs[0].data, name))
    for budget, normalisation, epoch in itertools.product(
        jobs[0].budgets, ("median", "min"), ("last", "best", "test")
    ):
        found = [
            regret_by(known(job.task), outcome.delivered[budget], epoch, normalisation)
            for job, outcome in zip(jobs, outcomes, strict=True)
        ]
        if None not in found:
            yield {
                "strategy": jobs[0].strategy, "workers": jobs[0].workers, "budget": budget,
                "epoch": epoch, "normalisation": normalisation, "mean": statistics.fmean(found),
            }  # fmt: skip


def print_measures(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        measure = f"best - {row['normalisation']}, {row['epoch']} epoch"
        print(f"    {measure:28} budget {row['budget']:3}: {row['mean']:+.3f}")


def print_table(rows: list[dict[str, Any]]) -> None:
    budgets = sorted({row["budget"] for row in rows})
    head = "".join(f"{f'{budget} mean (median; lost)':>32}" for budget in budgets)
    print(f"{'strategy':26}{'workers':>8}{head}{'decision ms p50 / p99':>24}{'trials':>8}")
    for key, group in itertools.groupby(rows, key=lambda row: (row["strategy"], row["workers"])):
        cells = list(group)
        values = "".join(
            f"{c['mean']:>+10.3f} ±{c['se']:.3f} ({c['median']:+.3f}; {c['worst_loss']:.3f})"
            for c in cells
        )
        latency = f"{cells[0]['decision_ms_p50']:.0f} / {cells[0]['decision_ms_p99']:.0f}"
        print(f"{key[0]:26}{key[1]:>8}{values}{latency:>24}{cells[0]['num_trials']:>8.0f}")


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    import plotly.graph_objects as go

    figure = go.Figure()
    for key, group in itertools.groupby(rows, key=lambda row: (row["strategy"], row["workers"])):
        cells = list(group)
        figure.add_scatter(
            x=[c["budget"] for c in cells],
            y=[c["mean"] for c in cells],
            error_y={"array": [c["se"] for c in cells]},
            name=f"{key[0]}, {key[1]} workers",
        )
    figure.update_layout(
        xaxis={"title": "budget, full trainings", "type": "log"}, yaxis_title="regret, mean"
    )
    figure.write_html(path, include_plotlyjs=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bed", choices=TASKS, default="lcbench")
    parser.add_argument("--data", type=Path, required=True, help="the bed's folder or file")
    parser.add_argument(
        "--split", default="report", help="develop, report, all, or tasks: 3945,7593"
    )
    parser.add_argument("--workers", default="1,8,64")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--strategies", default=",".join(STRATEGIES))
    parser.add_argument("--noise", type=float, default=0.0, help="in points of accuracy")
    parser.add_argument("--clock", choices=("epochs", "seconds"), default="epochs")
    parser.add_argument("--budget", type=int, default=BUDGETS[-1], help="the largest")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--kept", type=Path, help="searches that need not be run again")
    parser.add_argument("--measures", action="store_true", help="by last, best and test epoch")
    args = parser.parse_args()
    budgets = (*(budget for budget in BUDGETS if budget < args.budget), args.budget)
    rows: list[dict[str, Any]] = []
    # Processes are replaced after 8 jobs, because they keep the memory of finished searches.
    with get_context("spawn").Pool(args.processes, maxtasksperchild=8) as pool:
        for strategy in args.strategies.split(","):
            for workers in map(int, args.workers.split(",")):
                jobs = [
                    Job(strategy, args.bed, args.data, task, seed, workers, args.noise, args.clock,
                        budgets)
                    for seed in range(args.first_seed, args.first_seed + args.seeds)
                    for task in task_names(args.bed, args.data, args.split)
                ]  # fmt: skip
                outcomes = run_all(jobs, pool, args.kept)
                new = list(summarise(strategy, workers, jobs, outcomes))
                print_table(new)
                if args.measures:
                    print_measures(by_measure := list(measures(jobs, outcomes)))
                    for row in new:
                        row["measures"] = [m for m in by_measure if m["budget"] == row["budget"]]
                sys.stdout.flush()
                rows += new
                if args.output:
                    args.output.write_text(json.dumps(rows, indent=1) + "\n")
    if args.plot:
        plot(rows, args.plot)


if __name__ == "__main__":
    main()
