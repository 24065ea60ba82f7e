"""How often freeze_thaw moves the first rung, rightly or wrongly, in simulated searches.

    python benchmarks/first_rung_error_rates.py [--searches 400]

Trials' values at the rungs 2, 4, 8, 15, 28 and 52 (of 52 epochs) form a Markov chain of normal
variables: each rung has the same correlation with the next one. The best trials of a rung go on;
the table's title has their numbers. In the row `inverted`, ranks up to epoch 15 are reversed. The
table gives the true Spearman correlation over all trials. freeze_thaw should raise the first rung
if the rung's correlation with late epochs is below 0.5, and lower it if an earlier epoch's is at
least 0.85. Each kind of move allows for a standard error and may be wrong in 1/6 of the searches.
"""

import argparse
import math
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import numpy.typing as npt

from hpo.schedulers.first_rung import Curve, choose_first_rung

RUNGS = (2, 4, 8, 15, 28, 52)
Array = npt.NDArray[np.floating[Any]]


def values_at_rungs(num: int, correlation: float, rng: np.random.Generator) -> Array:
    """(num, 6) standard normal values of `num` trials at the six rungs."""
    columns = [rng.standard_normal(num)]
    for _ in RUNGS[1:]:
        noise = rng.standard_normal(num)
        columns.append(correlation * columns[-1] + math.sqrt(1 - correlation**2) * noise)
    return np.stack(columns, 1)


def curves_of(values: Array, goes_on: tuple[int, int, int]) -> list[Curve]:
    """Curves of which all reach epoch 8, and the `goes_on` best reach rungs 15, 28 and 52."""
    alive = np.arange(len(values))
    last = np.full(len(values), 2)
    for column, num in zip((2, 3, 4), goes_on, strict=True):
        alive = alive[np.argsort(-values[alive, column])[:num]]
        last[alive] = column + 1
    return [
        {RUNGS[i]: float(row[i]) for i in range(end + 1)}
        for row, end in zip(values, last, strict=True)
    ]


def report(num: int, goes_on: tuple[int, int, int], num_studies: int, num_searches: int) -> None:
    """Prints one row for each correlation between neighbouring rungs."""
    print(f"\n{num_studies} studies of {num} trials, of which {goes_on} go on to 15, 28 and 52")
    print("Spearman 8-28  8-52  2-28 | raised lowered")
    for correlation in (0.99, 0.97, 0.94, 0.8, 0.69, 0.5, -1.0):
        num_raised = num_lowered = 0
        for seed in range(num_searches):
            rng, studies = np.random.default_rng(seed), []
            for _ in range(num_studies):
                values = values_at_rungs(num, 0.95 if correlation < 0 else correlation, rng)
                values[:, :4] *= math.copysign(1.0, correlation)
                studies.append(curves_of(values, goes_on))
            chosen = choose_first_rung(studies, RUNGS[-1])
            num_raised += chosen is not None and chosen.epoch > 8
            num_lowered += chosen is not None and chosen.epoch < 8
        truth = [6 / math.pi * math.asin(correlation**steps / 2) for steps in (2, 3, 4)]
        text = (
            " ".join(f"{one:5.2f}" for one in truth) if correlation > 0 else "inverted".ljust(17)
        )
        print(
            f"        {text} | {num_raised / num_searches:6.2f} {num_lowered / num_searches:6.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--searches", type=int, default=400)
    num_searches = parser.parse_args().searches
    report(40, (15, 8, 4), 1, num_searches)
    report(80, (30, 15, 8), 1, num_searches)
    report(60, (12, 5, 2), 1, num_searches)
    report(40, (15, 8, 4), 4, num_searches)


if __name__ == "__main__":
    main()
