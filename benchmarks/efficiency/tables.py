"""The tables of finished searches: regrets by strategy, and paired differences to one of them."""

import functools
import itertools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from beds import Epoch, Normalisation, load_task, regret_by
from efficiency.jobs import Job, Outcome

Row = dict[str, Any]
Results = Sequence[tuple[Job, Outcome]]  # of one strategy and number of workers
Regrets = dict[tuple[str, int], Mapping[int, float]]  # by task and seed, then by budget


def summarise(results: Results) -> Iterator[Row]:
    """One row for each rule of delivering and budget, the strategy's own rule first."""
    times = [s for _, outcome in results for s in outcome.decision_seconds]
    first, _ = results[0]
    for name, regrets in _by_rule(results):
        for budget in first.budgets:
            values = {search: of_search[budget] for search, of_search in regrets.items()}
            yield {
                "strategy": name,
                "workers": first.workers,
                "budget": budget,
                **_over_tasks(values),
                "median": statistics.median(values.values()),
                "worst_loss": max(outcome.losses[budget] for _, outcome in results),
                "decision_ms_p50": float(np.percentile(times, 50)) * 1000,
                "decision_ms_p99": float(np.percentile(times, 99)) * 1000,
                "num_trials": statistics.fmean(outcome.num_trials for _, outcome in results),
            }


def differences(base: Results, other: Results) -> Iterator[Row]:
    """One row for two rules and a budget: the regret of `base` less that of the same searches."""
    job, _ = other[0]
    for (first, minuend), (second, subtrahend) in itertools.product(
        _by_rule(base), _by_rule(other)
    ):
        for budget in job.budgets:
            paired = {
                search: regrets[budget] - subtrahend[search][budget]
                for search, regrets in minuend.items()
            }
            yield {
                "strategy": f"{first} - {second}",
                "workers": job.workers,
                "budget": budget,
                **_over_tasks(paired),
            }


def _by_rule(results: Results) -> Iterator[tuple[str, Regrets]]:
    """The strategy's name and, with it, each further rule of delivering; the regrets by it."""
    strategy, others = results[0][0].strategy, results[0][1].others
    yield strategy, {(job.task, job.seed): outcome.regrets for job, outcome in results}
    for rule in others:
        regrets = {(job.task, job.seed): outcome.others[rule] for job, outcome in results}
        yield f"{strategy}, {rule}", regrets


def _over_tasks(values: Mapping[tuple[str, int], float]) -> Row:
    """The mean over tasks and seeds; its standard error is that of the tasks' means."""
    by_task: dict[str, list[float]] = {}
    for (task, _), value in values.items():
        by_task.setdefault(task, []).append(value)
    means = {task: statistics.fmean(of_task) for task, of_task in by_task.items()}
    se = statistics.stdev(means.values()) / len(means) ** 0.5 if len(means) > 1 else 0.0
    return {"mean": statistics.fmean(means.values()), "se": se, "by_task": means}


def measures(results: Results) -> Iterator[Row]:
    """One row for each budget and measure of beds.regret_by: the mean over tasks and seeds."""
    first, _ = results[0]
    known = functools.cache(lambda name: load_task(first.bed, first.data, name))
    ends: Sequence[Epoch] = ("last", "best", "test")
    scales: Sequence[Normalisation] = ("median", "min")
    for budget, scale, epoch in itertools.product(first.budgets, scales, ends):
        found = [
            regret_by(known(job.task), outcome.delivered[budget], epoch, scale)
            for job, outcome in results
        ]
        values = [value for value in found if value is not None]
        if len(values) == len(found):
            yield {
                "strategy": first.strategy, "workers": first.workers, "budget": budget,
                "epoch": epoch, "normalisation": scale, "mean": statistics.fmean(values),
            }  # fmt: skip


def print_measures(rows: Sequence[Row]) -> None:
    for row in rows:
        measure = f"best - {row['normalisation']}, {row['epoch']} epoch"
        print(f"    {measure:28} budget {row['budget']:3}: {row['mean']:+.3f}")


def print_table(rows: Sequence[Row], *, has_head: bool) -> None:
    budgets = sorted({row["budget"] for row in rows})
    head = "".join(f"{f'{budget} mean (median; lost)':>32}" for budget in budgets)
    if has_head:
        print(f"{'strategy':30}{'workers':>8}{head}{'decision ms p50 / p99':>24}{'trials':>8}")
    for (strategy, workers), cells in _lines(rows):
        values = "".join(
            f"{c['mean']:>+10.3f} ±{c['se']:.3f} ({c['median']:+.3f}; {c['worst_loss']:.3f})"
            for c in cells
        )
        latency = f"{cells[0]['decision_ms_p50']:.0f} / {cells[0]['decision_ms_p99']:.0f}"
        print(f"{strategy:30}{workers:>8}{values}{latency:>24}{cells[0]['num_trials']:>8.0f}")


def print_differences(rows: Sequence[Row]) -> None:
    budgets = sorted({row["budget"] for row in rows})
    print(f"\n{'difference':52}{'workers':>8}" + "".join(f"{budget:>18}" for budget in budgets))
    for (strategy, workers), cells in _lines(rows):
        values = "".join(f"{c['mean']:>+11.3f} ±{c['se']:.3f}" for c in cells)
        print(f"{strategy:52}{workers:>8}{values}")


def plot(rows: Sequence[Row], path: Path) -> None:
    import plotly.graph_objects as go

    figure = go.Figure()
    for (strategy, workers), cells in _lines(rows):
        figure.add_scatter(
            x=[c["budget"] for c in cells],
            y=[c["mean"] for c in cells],
            error_y={"array": [c["se"] for c in cells]},
            name=f"{strategy}, {workers} workers",
        )
    figure.update_layout(
        xaxis={"title": "budget, full trainings", "type": "log"}, yaxis_title="regret, mean"
    )
    figure.write_html(path, include_plotlyjs=True)


def _lines(rows: Sequence[Row]) -> Iterator[tuple[tuple[str, int], list[Row]]]:
    for key, group in itertools.groupby(rows, key=lambda row: (row["strategy"], row["workers"])):
        yield key, list(group)
