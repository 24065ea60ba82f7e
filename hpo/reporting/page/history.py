"""The figures of every trial's value, by number and by cost, and of the Pareto front."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

import plotly.graph_objects as go

from hpo.reporting.page.parts import BEST, COLOURS, SYMBOLS, Figure, thinned, titled
from hpo.reporting.page.reported import Reported
from hpo.selection.selection import pareto_front
from hpo.study.trial import TrialSummary

MOST_POINTS: Final = 3000


def history_figures(found: Reported) -> Iterator[Figure]:
    """Each trial's best value, by trial number and by the cost up to its end."""
    if not any(found.value(trial) is not None for trial in found.trials):
        return
    metric, trials = found.config.study.metric, found.trials
    best = found.best_by(trials)
    figure = _points(found, trials, {trial.number: trial.number for trial in trials})
    steps = [(trial.number, value) for trial, value in best]
    _add_best(figure, [*steps, (trials[-1].number, best[-1][1])] if best else [])
    last = f" The best was found by trial {best[-1][0].number}." if best else ""
    yield Figure(
        "history", f"The best {metric} of each trial, by trial number.{last}",
        titled(figure, "trial", metric),
    )  # fmt: skip
    yield from _by_cost(found)


def cost_unit(found: Reported) -> str:
    """What the cost of a search is counted in."""
    return "GPU-seconds" if found.has_gpus else "seconds of training on CPUs, all slots together"


def best_over_cost(found: Reported) -> list[tuple[float, float]]:
    """The best value after each cost at which it changed, and after the whole cost."""
    costs = _costs(found)
    steps = [(costs[t.number], value) for t, value in found.best_by(found.in_order_of_ends)]
    return [*steps, (max(costs.values()), steps[-1][1])] if steps else []


def _costs(found: Reported) -> dict[int, float]:
    """The cost of all trials up to the end of each, by number."""
    total, costs = 0.0, {}
    for trial in found.in_order_of_ends:
        taken = found.taken_by_trials.get(trial.number)
        total += 0.0 if taken is None else taken.gpu_seconds
        costs[trial.number] = total
    return costs


def _by_cost(found: Reported) -> Iterator[Figure]:
    costs = _costs(found)
    total = max(costs.values())
    if not total:
        return
    metric = found.config.study.metric
    figure = _points(found, found.in_order_of_ends, costs)
    _add_best(figure, best_over_cost(found))
    unit = cost_unit(found)
    text = f"The same by {unit}: all trials took {total:,.0f}."
    yield Figure("history-cost", text, titled(figure, unit, metric))


def _points(
    found: Reported, trials: Sequence[TrialSummary], places: dict[int, float] | dict[int, int]
) -> go.Figure:
    """Each trial at its place on the x axis and its value, a trace a state."""
    figure = go.Figure()
    shown = [t for t in thinned(trials, MOST_POINTS) if _is_finite(found.value(t))]
    for state, colour in COLOURS.items():
        chosen = [trial for trial in shown if found.state(trial) == state]
        if chosen:
            figure.add_scatter(
                x=[places[trial.number] for trial in chosen],
                y=[found.value(trial) for trial in chosen],
                customdata=[trial.number for trial in chosen],
                mode="markers",
                name=state,
                marker={"color": colour, "symbol": SYMBOLS[state], "size": 8},
                hovertemplate="trial %{customdata}: %{y:.4f}<extra>" + state + "</extra>",
            )
    return figure


def _add_best(figure: go.Figure, steps: Sequence[tuple[float, float]]) -> None:
    figure.add_scatter(
        x=[x for x, _ in steps], y=[y for _, y in steps], mode="lines", name="best so far",
        line={"shape": "hv", "color": BEST, "width": 2.5}, hoverinfo="skip",
    )  # fmt: skip


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def front_figures(found: Reported) -> Iterator[Figure]:
    """The metric over each cost objective, with the Pareto front; none with one objective."""
    study = found.config.study
    front = pareto_front(found.trials, study)
    for cost, _ in study.objectives:
        if cost != study.metric and front:
            yield _front_figure(found, front, cost)


def _front_figure(found: Reported, front: Sequence[TrialSummary], cost: str) -> Figure:
    study = found.config.study
    measured = [trial for trial in found.trials if cost in trial.attributes]
    figure = _points(found, measured, {t.number: t.attributes[cost] for t in measured})
    by_cost = sorted(front, key=lambda trial: trial.attributes[cost])

    def add(name: str, chosen: Sequence[TrialSummary], **style: Any) -> None:
        figure.add_scatter(
            x=[trial.attributes.get(cost) for trial in chosen],
            y=[found.value(trial) for trial in chosen],
            customdata=[trial.number for trial in chosen],
            name=name,
            hovertemplate=f"trial %{{customdata}}: %{{y:.4f}}, {cost} %{{x}}<extra></extra>",
            **style,
        )

    add(
        "Pareto front", by_cost, mode="lines+markers", marker={"color": BEST, "size": 11},
        line={"color": BEST, "width": 1.5},
    )  # fmt: skip
    if found.winner is not None:
        ring = {"color": "rgba(0,0,0,0)", "size": 19, "line": {"color": BEST, "width": 2}}
        add(f"trial {found.winner.number}, selected", [found.winner], mode="markers", marker=ring)
    for constraint in study.constraints:
        if constraint.name == cost:
            figure.add_vline(
                x=constraint.bound, line_dash="dot", line_color="#888",
                annotation_text=str(constraint),
            )  # fmt: skip
    num = "one trial" if len(front) == 1 else f"{len(front)} trials"
    text = (
        f"{study.metric} and {cost} of each trial; no trial is better in all than {num} (green)."
    )
    return Figure(f"front-{cost}", text, titled(figure, cost, study.metric))
