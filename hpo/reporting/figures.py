"""The plotly figures of the report: history, learning curves, parameters, front, confusions."""

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import plotly.graph_objects as go

from hpo.config.schema import SearchConfig
from hpo.config.search_space import Parameter
from hpo.reporting.leaderboard import format_value, value_so_far
from hpo.selection.selection import pareto_front
from hpo.study.trial import TrialStatus, TrialSummary

COLOURS: Final = {
    TrialStatus.COMPLETE: "#1f77b4",
    TrialStatus.PRUNED: "#ff9f43",
    TrialStatus.FAIL: "#d62728",
    TrialStatus.RUNNING: "#7f7f7f",
}
MAX_CURVES: Final = 200
MAX_CLASSES_WITH_TEXT: Final = 30


def front_figures(
    trials: Sequence[TrialSummary], config: SearchConfig, winner: TrialSummary | None
) -> Iterator[tuple[str, go.Figure]]:
    """Title and figure of metric over cost with the Pareto front, for each cost objective."""
    metric, front = config.study.metric, pareto_front(trials, config.study)
    for cost, _ in config.study.objectives:
        if cost != metric and front:
            yield f"{metric} and {cost}", _front_figure(trials, front, config, cost, winner)


def _front_figure(
    trials: Sequence[TrialSummary],
    front: Sequence[TrialSummary],
    config: SearchConfig,
    cost: str,
    winner: TrialSummary | None,
) -> go.Figure:
    figure = go.Figure()

    def add(name: str, chosen: Sequence[TrialSummary], **style: Any) -> None:
        figure.add_scatter(
            x=[trial.attributes.get(cost) for trial in chosen],
            y=[value_so_far(trial) for trial in chosen],
            name=name,
            text=[_hover(trial) for trial in chosen],
            hovertemplate="%{x}, %{y:.4f}<br>%{text}<extra></extra>",
            **style,
        )

    for state, colour in COLOURS.items():
        marker = {"color": colour, "size": 7, "opacity": 0.5}
        if chosen := [trial for trial in trials if trial.state == state and trial.curve]:
            add(state.lower(), chosen, mode="markers", marker=marker)
    by_cost = sorted(front, key=lambda trial: trial.attributes[cost])
    marker, line = {"color": "#2ca02c", "size": 11}, {"color": "#2ca02c", "width": 1.5}
    add("Pareto front", by_cost, mode="lines+markers", marker=marker, line=line)
    if winner is not None:
        marker = {"color": "rgba(0,0,0,0)", "size": 19, "line": {"color": "#222", "width": 2}}
        add(f"trial {winner.number}, in best/", [winner], mode="markers", marker=marker)
    for constraint in config.study.constraints:
        if constraint.name == cost:
            figure.add_vline(x=constraint.bound, line_dash="dot", annotation_text=str(constraint))
    figure.update_xaxes(title=cost)
    figure.update_yaxes(title=config.study.metric)
    return figure


def history_figure(trials: Sequence[TrialSummary], config: SearchConfig) -> go.Figure:
    """Each trial's best value so far by trial number, with the best value of the search."""
    figure = go.Figure()
    pick = config.study.objective.best
    values = [(t, value_so_far(t)) for t in trials]
    for state, colour in COLOURS.items():
        chosen = [(t, v) for t, v in values if t.state == state and v is not None]
        if chosen:
            figure.add_scatter(
                x=[t.number for t, _ in chosen],
                y=[v for _, v in chosen],
                mode="markers",
                name=state.lower(),
                marker={"color": colour, "size": 9},
                text=[_hover(t) for t, _ in chosen],
                hovertemplate="%{text}<extra></extra>",
            )
    best: list[tuple[int, float]] = []
    for trial, value in values:
        # A stopped trial may win if finalists are retrained.
        may_win = trial.state == TrialStatus.COMPLETE or (
            config.compares_finalists and trial.state != TrialStatus.FAIL
        )
        if value is not None and may_win and trial.is_feasible:
            best.append((trial.number, pick([value, *(v for _, v in best[-1:])])))
    figure.add_scatter(
        x=[n for n, _ in best], y=[v for _, v in best], mode="lines", name="best so far",
        line={"shape": "hv", "color": "#2ca02c"},
    )  # fmt: skip
    figure.update_xaxes(title="trial")
    figure.update_yaxes(title=config.study.metric)
    return figure


def curves_title(trials: Sequence[TrialSummary]) -> str:
    """The title of curves_figure, which says if only some of the trials are shown."""
    if len(trials) <= MAX_CURVES:
        return "Learning curves"
    return f"Learning curves (the last {MAX_CURVES} of {len(trials)}, the winner, the default)"


def curves_figure(
    trials: Sequence[TrialSummary], config: SearchConfig, winner: TrialSummary | None
) -> go.Figure:
    """Learning curves of the last MAX_CURVES trials, the winner and the default."""
    figure = go.Figure()
    chosen = trials[-MAX_CURVES:]
    shown = {0} if winner is None else {0, winner.number}
    for trial in (*(t for t in trials[:-MAX_CURVES] if t.number in shown), *chosen):
        is_winner = winner is not None and trial.number == winner.number
        figure.add_scatter(
            x=list(trial.curve),
            y=list(trial.curve.values()),
            mode="lines+markers" if len(trial.curve) == 1 else "lines",
            name=f"{trial.number} {trial.state.lower()}",
            line={
                "color": "#2ca02c" if is_winner else COLOURS[trial.state],
                "width": 4 if is_winner else 1.5,
            },
            text=[_hover(trial)] * len(trial.curve),
            hovertemplate="epoch %{x}: %{y:.4f}<br>%{text}<extra></extra>",
            opacity=1 if is_winner else 0.7,
        )
    figure.update_xaxes(title="epoch")
    figure.update_yaxes(title=config.study.metric)
    return figure


def parameters_figure(trials: Sequence[TrialSummary], config: SearchConfig) -> go.Figure | None:
    """Parallel coordinates of the params of trials with a value; None for fewer than two."""
    values = [(t, value_so_far(t)) for t in trials]
    chosen = [(t, v) for t, v in values if v is not None]
    if len(chosen) < 2:
        return None
    dimensions = [
        _dimension(path, parameter, [t.params.get(path) for t, _ in chosen])
        for path, parameter in config.space.items()
    ]
    colours = [v for _, v in chosen]
    dimensions.append({"label": config.study.metric, "values": colours})
    return go.Figure(
        go.Parcoords(
            dimensions=dimensions,
            line={"color": colours, "colorscale": "Viridis", "showscale": True},
            labelfont={"size": 12},
        ),
        layout={"margin": {"t": 70, "l": 110}},
    )


def _dimension(path: str, parameter: Parameter, values: Sequence[Any]) -> dict[str, Any]:
    numbers = parameter.type != "categorical" and None not in values
    if numbers and parameter.type != "categorical" and parameter.log:
        logs = [math.log10(v) for v in values]
        ticks = list(range(math.floor(min(logs)), math.ceil(max(logs)) + 1))
        return {
            "label": path,
            "values": logs,
            "range": [ticks[0], ticks[-1]],
            "tickvals": ticks,
            "ticktext": [f"{10.0**tick:g}" for tick in ticks],
        }
    if numbers:
        return {"label": path, "values": list(values)}
    names = sorted({str(v) for v in values})
    return {
        "label": path,
        "values": [names.index(str(v)) for v in values],
        "tickvals": list(range(len(names))),
        "ticktext": names,
    }


def importance_figure(shares: Mapping[str, float], config: SearchConfig) -> go.Figure | None:
    """Bars of the parameter importances; None if none is known."""
    if not shares:
        return None
    is_by_model = config.scheduler.name == "freeze_thaw"
    by = ", by the model of curves" if is_by_model else " among complete trials"
    names = list(shares)[::-1]
    bars = go.Bar(x=[shares[name] for name in names], y=names, orientation="h")
    return go.Figure(bars, layout={"height": 120 + 40 * len(names)}).update_xaxes(
        title=f"importance{by}"
    ).update_yaxes(automargin=True)  # fmt: skip


def confusion_figure(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> go.Figure:
    """A heat map of the confusion matrix.

    Args:
        matrix: (C, C) numbers of images; rows are true classes, columns are predicted classes.
        classes: The C class names.
    """
    names = [html.escape(str(name)) for name in classes]  # plotly takes tags for markup
    has_room = len(names) <= MAX_CLASSES_WITH_TEXT
    heatmap = go.Heatmap(
        z=matrix,
        x=names,
        y=names,
        colorscale="Blues",
        text=matrix if has_room else None,
        texttemplate="%{text}" if has_room else None,
        hovertemplate="true %{y}, predicted %{x}: %{z}<extra></extra>",
    )
    figure = go.Figure(heatmap, layout={"height": 640})
    figure.update_xaxes(title="predicted", type="category")
    figure.update_yaxes(title="true", type="category", autorange="reversed")
    return figure


def _hover(trial: TrialSummary) -> str:
    params = "<br>".join(f"{html.escape(p)} = {format_value(v)}" for p, v in trial.params.items())
    reason = html.escape(str(trial.attributes.get("end_reason", "")))
    return f"trial {trial.number}: {reason}<br>{params}"
