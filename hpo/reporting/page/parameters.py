"""The figures of parameters: importances, parallel coordinates, and one slice a parameter."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

import plotly.graph_objects as go

from hpo.config.search_space import CategoricalParameter, Parameter
from hpo.reporting.page.parts import COLOURS, SYMBOLS, Figure, labels, percent, thinned, titled
from hpo.reporting.page.reported import Reported
from hpo.study.trial import TrialSummary

MOST_LINES: Final = 2000
MOST_POINTS: Final = 1000  # of a slice
# From bad to good, each seen on white and on black.
SCALE: Final = [[0.0, "#9a6bd1"], [0.5, "#3b82d6"], [1.0, "#d08700"]]
A_DIMENSION: Final = 105  # pixels
A_LETTER: Final = 7
NOT_SET: Final = "not set"


def parameter_figures(found: Reported) -> Iterator[Figure]:
    """Importances and parallel coordinates, as far as there are enough trials."""
    yield from _importance_figure(found)
    valued = _valued(found)
    if len(valued) >= 2:
        yield _parallel(found, valued)


def slice_figures(found: Reported) -> Iterator[Figure]:
    """The values of trials over each parameter, the most important ones first."""
    valued = _valued(found)
    if len(valued) < 2:
        return
    known = list(found.importances)
    order = [*known, *(path for path in found.config.space if path not in known)]
    for position, path in enumerate(order):
        yield _slice(found, valued, path, position)


def _valued(found: Reported) -> list[tuple[TrialSummary, float]]:
    values = [(trial, found.value(trial)) for trial in found.trials]
    return [(t, value) for t, value in values if value is not None and math.isfinite(value)]


def _importance_figure(found: Reported) -> Iterator[Figure]:
    if not found.importances:
        return
    names = list(found.importances)[::-1]
    each = [found.importances[name] for name in names]
    has_intervals = any(one.low is not None for one in each)
    bars = go.Bar(
        x=[one.share for one in each],
        y=names,
        orientation="h",
        marker={"color": COLOURS["complete"]},
        hovertemplate="%{y}: %{x:.1%}<extra></extra>",
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [0 if one.high is None else one.high - one.share for one in each],
            "arrayminus": [0 if one.low is None else one.share - one.low for one in each],
            "visible": has_intervals,
            "color": "#888",
        },
    )
    figure = titled(go.Figure(bars), "share of the importance", "")
    figure.update_xaxes(tickformat=".0%", rangemode="tozero")
    is_by_model = found.config.scheduler.name == "freeze_thaw"
    by = "by what the model of curves predicts" if is_by_model else "among complete trials"
    spread = "; lines: 95 %, by resampling the trials" if has_intervals else ""
    text = f"{names[-1]} mattered most, with {percent(each[-1].share)}, {by} (PED-ANOVA{spread})."
    yield Figure("importance", text, figure, height=130 + 32 * len(names))


def _parallel(found: Reported, valued: Sequence[tuple[TrialSummary, float]]) -> Figure:
    study = found.config.study
    shown = thinned(valued, MOST_LINES)
    dimensions = [
        _dimension(path, parameter, [trial.params.get(path) for trial, _ in shown])
        for path, parameter in found.config.space.items()
    ]
    values = [value for _, value in shown]
    dimensions.append({"label": study.metric, "values": values})
    lines = go.Parcoords(
        dimensions=dimensions,
        line={
            "color": values,
            "colorscale": SCALE,
            "reversescale": not study.objective.maximises,
            "showscale": True,
        },
        labelangle=-12,
        labelside="top",
    )
    margin = 30 + A_LETTER * max(map(len, dimensions[0].get("ticktext", ("",))))
    figure = go.Figure(lines, layout={"margin": {"l": margin, "r": 60, "t": 90, "b": 30}})
    left_out = f" {len(shown)} of {len(valued)} trials." if len(shown) < len(valued) else ""
    text = (
        "Each line is a trial, coloured by its value. Drag along an axis to choose a range; "
        f"click the axis to choose all again.{left_out}"
    )
    return Figure("parallel", text, figure, 440, A_DIMENSION * (len(dimensions) + 1))


def _dimension(path: str, parameter: Parameter, values: Sequence[Any]) -> dict[str, Any]:
    if isinstance(parameter, CategoricalParameter):
        return {"label": path, **_of_choices([_name(value) for value in values])}
    numbers = [value for value in values if value is not None]
    if not numbers:
        return {"label": path, **_of_choices([NOT_SET for _ in values])}
    scale = math.log10 if parameter.log else float
    low, high = min(map(scale, numbers)), max(map(scale, numbers))
    ticks = _ticks(low, high, is_log=parameter.log)
    below = low - max(0.15 * (high - low), 0.1)
    texts = [f"{10.0**tick if parameter.log else tick:.3g}" for tick in ticks]
    if len(numbers) < len(values):
        ticks, texts = [below, *ticks], [NOT_SET, *texts]
    return {
        "label": path,
        "values": [below if value is None else scale(value) for value in values],
        "tickvals": ticks,
        "ticktext": texts,
    }


def _ticks(low: float, high: float, *, is_log: bool) -> list[float]:
    """Where an axis has ticks: at whole powers of ten, if there are two, else at five places."""
    whole = [float(power) for power in range(math.ceil(low), math.floor(high) + 1)]
    if is_log and len(whole) >= 2:
        return whole
    return [low + i * (high - low) / 4 for i in range(5)] if high > low else [low]


def _of_choices(names: Sequence[str]) -> dict[str, Any]:
    choices = sorted(set(names))
    return {
        "values": [choices.index(name) for name in names],
        "tickvals": list(range(len(choices))),
        "ticktext": list(labels(choices).values()),
    }


def _slice(
    found: Reported, valued: Sequence[tuple[TrialSummary, float]], path: str, position: int
) -> Figure:
    parameter = found.config.space[path]
    is_number = not isinstance(parameter, CategoricalParameter)
    figure = go.Figure()
    shown = [one for one in thinned(valued, MOST_POINTS) if path in one[0].params]
    named = labels(_name(trial.params[path]) for trial, _ in shown)
    for state, colour in COLOURS.items():
        chosen = [(t, value) for t, value in shown if found.state(t) == state]
        if chosen:
            places = [t.params[path] for t, _ in chosen]
            figure.add_scatter(
                x=places if is_number else [named[_name(place)] for place in places],
                y=[value for _, value in chosen],
                customdata=[trial.number for trial, _ in chosen],
                mode="markers",
                name=state,
                marker={"color": colour, "symbol": SYMBOLS[state], "size": 7, "opacity": 0.8},
                hovertemplate="trial %{customdata}: %{y:.4f} at %{x}<extra></extra>",
            )
    titled(figure, path, found.config.study.metric)
    figure.update_layout(showlegend=False, margin={"l": 60, "r": 12, "t": 14, "b": 48})
    is_log = not isinstance(parameter, CategoricalParameter) and parameter.log
    figure.update_xaxes(type="log" if is_log else "linear" if is_number else "category")
    if path in found.importances:
        text = f"{path}: {percent(found.importances[path].share)} of the importance."
    else:
        text = f"The values of trials by {path}."
    return Figure(f"slice-{position}", text, figure, height=260)


def _name(value: Any) -> str:
    return NOT_SET if value is None else str(value)
