"""Regret of the configuration that a search delivers, by budget: ours, Optuna with ASHA, peers.

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
`ours-warm` a warm start from another task, `ours-cost` scheduler.cost_aware. The others know no
budget and deliver the trial with the best value seen; a further row has the other rule, where
there is one. No side pays for training what it delivers, nor twice for an epoch of a paused trial.
`SAMPLER+asha` is Ray's asynchronous halving (rungs 4, 12, 36) with Optuna's sampler; as with
OptunaSearch, every trial is told COMPLETE with its last value (`+pruned`: told PRUNED with its
curve). `+default` tries the default configuration first.

Peers are published optimizers with the default first, their first rung at epoch 4 (`NAME@8`: at 8;
NePS, SMAC3 and DEHB: at least) and a factor of 3 between rungs: mobster, hypertune, dyhpo, pasha,
asha-promotion (Syne Tune 0.13), asha-cqr, bohb (Syne Tune 0.16), smac, priorband, async-hyperband
(NePS) and dehb. `make peers` installs them; efficiency/peers.py says how they are run.

Differences between the first strategy and each other one are paired by task and seed. A full run
takes hours, mostly in GPs of others. Finished searches are kept in FILE.jsonl and not repeated by
the same command; remove the file after changing the code.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

# Each run uses one core. These variables must be set before NumPy is imported.
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
sys.path.insert(0, str(Path(__file__).parents[1]))

from beds import TASKS, task_names
from efficiency.jobs import Job, Outcome, keep, key_of, read_kept
from efficiency.ours import run_ours
from efficiency.peers import is_peer, run_peer
from efficiency.stock import run_stock
from efficiency.tables import (
    Results,
    Row,
    differences,
    measures,
    plot,
    print_differences,
    print_measures,
    print_table,
    summarise,
)

BUDGETS: Final = (5, 10, 20, 40)
STOCK: Final = (
    "random+asha", "tpe", "tpe+asha", "tpe+asha+default", "tpe+asha+pruned+default",
    "gp+asha", "gp+asha+default",
)  # fmt: skip
OURS: Final = ("ours", "ours-asha", "ours-asha-promotion", "ours-hyperband", "ours-median")
STRATEGIES: Final = (*OURS, *STOCK)


def run(job: Job) -> Outcome:
    if is_peer(job.strategy):
        return run_peer(job)
    return (run_ours if job.strategy.startswith("ours") else run_stock)(job)


def run_all(jobs: Sequence[Job], pool: Any, kept: Path | None) -> list[tuple[Job, Outcome]]:
    """Each job and its outcome, from the file `kept` if it is there; new ones are appended."""
    known = dict(read_kept(kept))
    missing = [job for job in jobs if key_of(job) not in known]
    for job, outcome in pool.imap_unordered(run_one, missing):
        known[key_of(job)] = outcome
        if kept is not None:
            keep(kept, job, outcome)
    return [(job, known[key_of(job)]) for job in jobs]


def run_one(job: Job) -> tuple[Job, Outcome]:
    return job, run(job)


def jobs_of(args: argparse.Namespace, strategy: str, workers: int) -> list[Job]:
    budgets = (*(budget for budget in BUDGETS if budget < args.budget), args.budget)
    return [
        Job(strategy, args.bed, args.data, task, seed, workers, args.noise, args.clock, budgets)
        for seed in range(args.first_seed, args.first_seed + args.seeds)
        for task in task_names(args.bed, args.data, args.split)
    ]


def parse() -> argparse.Namespace:
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
    return parser.parse_args()


def add_measures(rows: Sequence[Row], results: Results) -> None:
    """Prints what the results come to by other measures, and adds it to their rows."""
    found = list(measures(results))
    print_measures(found)
    for row in rows:
        row["measures"] = [one for one in found if one["budget"] == row["budget"]]


def main() -> None:
    args = parse()
    rows: list[dict[str, Any]] = []
    paired: list[dict[str, Any]] = []
    first: dict[int, list[tuple[Job, Outcome]]] = {}
    # Processes are replaced after 8 jobs, because they keep the memory of finished searches.
    with get_context("spawn").Pool(args.processes, maxtasksperchild=8) as pool:
        for strategy in args.strategies.split(","):
            for workers in map(int, args.workers.split(",")):
                results = run_all(jobs_of(args, strategy, workers), pool, args.kept)
                new = list(summarise(results))
                print_table(new, has_head=not rows)
                if args.measures:
                    add_measures(new, results)
                sys.stdout.flush()
                rows += new
                if workers in first:
                    paired += differences(first[workers], results)
                first.setdefault(workers, results)
                if args.output:
                    args.output.write_text(json.dumps(rows + paired, indent=1) + "\n")
    if paired:
        print_differences(paired)
    if args.plot:
        plot(rows, args.plot)


if __name__ == "__main__":
    main()
