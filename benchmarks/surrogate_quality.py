"""How well the surrogate of curves predicts final values, on beds with known curves.

    python benchmarks/surrogate_quality.py --beds lcbench=DIR,taskset=DIR,own=FILE
        [--split develop|report] [--rows 100,250] [--seeds 2]

For each task configurations are drawn, of the recorded ones where a bed has these, and trained as
a search would: half of them stop at each rung, the worse ones. The surrogate is fitted to `rows`
values at rungs, or to fewer where too few trainings are recorded, and predicts the values after
the last epoch of

new      32 other configurations (at most a third of the recorded ones),
stopped  the configurations that were stopped.

Figures are means over tasks and seeds on the surrogate's own scale (warped values of standard
deviation 1): log likelihood (larger is better), root of the mean squared error, and the shares of
values inside the intervals of 50 and 90 %. `last` carries each curve's last value forward.
"""

import argparse
import itertools
import os
import statistics
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from beds import Array, Params, Task, load_task, task_names
from scipy.special import ndtri

NUM_NEW = 32


@dataclass(frozen=True)
class Curves:
    """Trained configurations of a task.

    Attributes:
        points: (n, d) in the unit cube.
        values: (n, max_epochs) whole curves.
        epochs: (n,) the epoch at which each was stopped.
    """

    points: Array
    values: Array
    epochs: Array


def drawn(task: Task, candidates: Any, num: int, seed: int) -> tuple[list[Params], list[Params]]:
    """At most `num` configurations to learn from, and others to predict."""
    if task.params is None:
        warnings.filterwarnings("ignore", "The balance properties of Sobol")
        known, new = candidates.sobol(num), candidates.sobol(NUM_NEW, seed=seed + 1000)
        decode = candidates.cube.decode
        return list(map(decode, known)), list(map(decode, new))
    params = [task.params[i] for i in np.random.default_rng(seed).permutation(len(task.params))]
    num_new = min(NUM_NEW, len(params) // 3)
    return params[num_new : num_new + num], params[:num_new]


def trained(points: Array, values: Array, rungs: list[int], num_rows: int) -> Curves:
    """About as many configurations as give `num_rows` values at rungs; the worse ones stop."""
    num = len(points)
    while True:
        epochs = np.full(num, rungs[0])
        left = np.arange(num)
        for rung, following in itertools.pairwise(rungs):
            left = left[np.argsort(-values[left, rung - 1], kind="stable")[: (len(left) + 1) // 2]]
            epochs[left] = following
        if sum(sum(rung <= epoch for rung in rungs) for epoch in epochs) <= num_rows:
            return Curves(points[:num], values[:num], epochs)
        num -= max(1, num // 20)


def scaled(warp: Any, values: Array) -> Array:
    """Values on the surrogate's scale, also above the best one that it has seen."""
    scale = np.linspace(-30, 30, 60_001)
    return np.interp(values, warp.backward(scale), scale)


def of_predictions(model: Any, points: Array, true: Array) -> dict[str, float]:
    """The figures of what a model predicts of points (n, d), whose scaled ends are `true` (n,)."""
    from hpo.surrogate.kernel import noise

    mean, sd = model.predict(points, np.ones(len(points)))
    sd = np.sqrt(sd**2 + noise(model.hyperparameters))
    off = np.abs(true - mean)
    density = -0.5 * (off / sd) ** 2 - np.log(sd * np.sqrt(2 * np.pi))
    return {
        "likelihood": float(density.mean()),
        "error": float(np.sqrt((off**2).mean())),
        "50 %": float((off < ndtri(0.75) * sd).mean()),
        "90 %": float((off < ndtri(0.95) * sd).mean()),
    }


def measured(task: Task, seed: int, num_rows: int) -> dict[str, float]:
    """The figures of one task and seed."""
    from hpo.config.rungs import rungs as rungs_of
    from hpo.config.schema import SearchConfig
    from hpo.surrogate.candidates import Candidates
    from hpo.surrogate.gp import CurveModel
    from hpo.surrogate.output_warp import OutputWarp
    from hpo.surrogate.rows import Rows, log_times

    config = SearchConfig.model_validate(
        {
            "study": {"name": "quality", "num_trials": 1},
            "space": task.space,
            "train": {"max_epochs": task.max_epochs},
        }
    )
    candidates = Candidates(config.space, seed)
    rungs = list(rungs_of(task.max_epochs))
    encode = candidates.cube.encode
    (points, values), (new, new_values) = (
        (np.array(list(map(encode, ones))), np.array([task.curve(one)[0] for one in ones]))
        for ones in drawn(task, candidates, num_rows, seed)
    )
    known = trained(points, values, rungs, num_rows)
    at = [(i, rung) for i, end in enumerate(known.epochs) for rung in rungs if rung <= end]
    seen = np.array([known.values[i, rung - 1] for i, rung in at])
    warp = OutputWarp(seen)
    rows = Rows(
        known.points[[i for i, _ in at]],
        log_times([rung for _, rung in at], task.max_epochs),
        warp.forward(seen),
    )
    begin = time.perf_counter()
    model = CurveModel(rows, candidates.cube.is_categorical)
    seconds = time.perf_counter() - begin
    stopped = np.flatnonzero(known.epochs < task.max_epochs)
    ends = {
        "new": (new, new_values[:, -1]),
        "stopped": (known.points[stopped], known.values[stopped, -1]),
    }
    figures = {"seconds": seconds}
    for name, (points, true) in ends.items():
        judged = of_predictions(model, points, scaled(warp, true))
        figures |= {f"{name} {what}": figure for what, figure in judged.items()}
    last = known.values[stopped, known.epochs[stopped] - 1]
    off = scaled(warp, ends["stopped"][1]) - scaled(warp, last)
    return figures | {"last error": float(np.sqrt((off**2).mean()))}


def tables(arguments: argparse.Namespace) -> Iterator[str]:
    heads = None
    for bed_and_folder in arguments.beds.split(","):
        bed, folder = bed_and_folder.split("=", 1)
        for num_rows in map(int, arguments.rows.split(",")):
            found = [
                measured(load_task(bed, Path(folder), name), seed, num_rows)
                for name in task_names(bed, Path(folder), arguments.split)
                for seed in range(arguments.seeds)
            ]
            if heads is None:
                heads = list(found[0])
                yield f"{'bed':10}{'rows':>6}" + "".join(f"{head:>20}" for head in heads)
            means = [statistics.fmean(one[head] for one in found) for head in heads]
            yield f"{bed:10}{num_rows:>6}" + "".join(f"{mean:>20.3f}" for mean in means)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--beds", required=True, help="lcbench=DIR,taskset=DIR,own=FILE")
    parser.add_argument("--split", default="develop")
    parser.add_argument("--rows", default="100,250")
    parser.add_argument("--seeds", type=int, default=2)
    for line in tables(parser.parse_args()):
        print(line, flush=True)


if __name__ == "__main__":
    main()
