"""The tables of finished searches: regrets by strategy, and paired differences to one of them."""

import itertools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from efficiency.jobs import Job, Outcome

Row = dict[str, Any]
Results = Sequence[tuple[Job, Outcome]]  # of one strategy and number of workers


def summarise(results: Results) -> Iterator[Row]:
    """One row for each rule of delivering and budget, the strategy's own rule first."""
    strategy = results[0][0].strategy
    yield from _summarise(strategy, results, [outcome.regrets for _, outcome in results])
    for rule in results[0][1].others:
        regrets = [outcome.others[rule] for _, outcome in results]
        yield from _summarise(f"{strategy}, {rule}", results, regrets)


def _summarise(
    name: str, results: Results, regrets: Sequence[Mapping[int, float]]
) -> Iterator[Row]:
    times = [s for _, outcome in results for s in outcome.decision_seconds]
    first, _ = results[0]
    for budget in first.budgets:
        values = [of_one[budget] for of_one in regrets]
        by_search = {
            (job.task, job.seed): value for (job, _), value in zip(results, values, strict=True)
        }
        yield {
            "strategy": name,
            "workers": first.workers,
            "budget": budget,
            "median": statistics.median(values),
            **_over_tasks(by_search),
            "worst_loss": max(outcome.losses[budget] for _, outcome in results),
            "decision_ms_p50": float(np.percentile(times, 50)) * 1000,
            "decision_ms_p99": float(np.percentile(times, 99)) * 1000,
            "num_trials": statistics.fmean(outcome.num_trials for _, outcome in results),
        }


def differences(base: Results, other: Results) -> Iterator[Row]:
    """One row for each budget: the regret of `base` less that of `other`, of the same searches."""
    first = {(job.task, job.seed): outcome.regrets for job, outcome in base}
    second = {(job.task, job.seed): outcome.regrets for job, outcome in other}
    job = other[0][0]
    for budget in job.budgets:
        paired = {key: first[key][budget] - second[key][budget] for key in first}
        yield {
            "strategy": f"{base[0][0].strategy} - {job.strategy}",
            "workers": job.workers,
            "budget": budget,
            **_over_tasks(paired),
        }


def _over_tasks(values: Mapping[tuple[str, int], float]) -> Row:
    """The mean over tasks and seeds; its standard error is that of the tasks' means."""
    by_task: dict[str, list[float]] = {}
    for (task, _), value in values.items():
        by_task.setdefault(task, []).append(value)
    means = {task: statistics.fmean(of_task) for task, of_task in by_task.items()}
    se = statistics.stdev(means.values()) / len(means) ** 0.5 if len(means) > 1 else 0.0
    return {"mean": statistics.fmean(means.values()), "se": se, "by_task": means}


def print_table(rows: Sequence[Row]) -> None:
    budgets = sorted({row["budget"] for row in rows})
    head = "".join(f"{f'{budget} mean (median; lost)':>32}" for budget in budgets)
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
    print(f"\n{'difference':38}{'workers':>8}" + "".join(f"{budget:>18}" for budget in budgets))
    for (strategy, workers), cells in _lines(rows):
        values = "".join(f"{c['mean']:>+11.3f} ±{c['se']:.3f}" for c in cells)
        print(f"{strategy:38}{workers:>8}{values}")


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
