"""leaderboard.csv and report.html of a run."""

import csv
import html
import io
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

import plotly.graph_objects as go

from hpo.config.schema import SearchConfig
from hpo.config.search_space import Parameter
from hpo.run_folder import RunFolder, replace_text
from hpo.schedulers.first_rung import first_level_text, read_first_levels
from hpo.selection.finalists import read_verdict, winner_of
from hpo.selection.importances import importances
from hpo.selection.selection import objective_values, pareto_front
from hpo.selection.verdict import (
    DEFAULT,
    Verdict,
    correction_text,
    epochs_text,
    finalist_values,
    gain_text,
    mean_text,
    signed_text,
)
from hpo.study.study import SearchStudy
from hpo.study.trial import TrialSummary

COLOURS: Final = {
    "COMPLETE": "#1f77b4",
    "PRUNED": "#ff9f43",
    "FAIL": "#d62728",
    "RUNNING": "#7f7f7f",
}
MAX_CURVES: Final = 200
MAX_NUMBERS: Final = 20
MARGIN: Final = {"l": 60, "r": 20, "t": 30, "b": 50}
STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem;
  color: #222; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; }
.summary { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1.5rem 0; padding: 0; }
.summary div { background: #f4f6f8; border-radius: .5rem; padding: .75rem 1.25rem; }
.summary b { display: block; font-size: 1.5rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid #e3e6e8; }
th { background: #f4f6f8; }
table.text { white-space: normal; } table.text td, table.text th { text-align: left; }
tr.winner { background: #e8f3ff; font-weight: 600; }
"""


def write_report(run: RunFolder, config: SearchConfig, study: SearchStudy) -> None:
    """Writes both files, from the study and from best/ if that is there."""
    trials = study.trials()
    verdict = read_verdict(config, study, trials)
    winner = winner_of(config, trials, verdict)
    rows = list(leaderboard_rows(trials, config, verdict))
    replace_text(run.leaderboard, _to_csv(rows))
    replace_text(run.report, _to_html(run, config, study, rows, winner, verdict))


def leaderboard_rows(
    trials: Sequence[TrialSummary], config: SearchConfig, verdict: Verdict | None = None
) -> Iterator[dict[str, Any]]:
    """One row a trial: the winner, complete ones by value, others by their best so far."""
    sign = config.study.objective.sign
    several = config.study.has_several_objectives
    front = {trial.number for trial in pareto_front(trials, config.study)}
    winner = winner_of(config, trials, verdict)
    order = {"COMPLETE": 0, "PRUNED": 1, "RUNNING": 2, "FAIL": 3}

    def rank(trial: TrialSummary) -> tuple[Any, ...]:
        best = _value_so_far(trial)
        is_winner = winner is not None and trial.number == winner.number
        return (
            not is_winner,
            order[trial.state],
            -sign * best if best is not None else math.inf,
            trial.number,
        )

    for trial in sorted(trials, key=rank):
        attributes = trial.attributes
        yield {
            "number": trial.number,
            "state": trial.state,
            **objective_values(trial, config.study),
            **({"front": trial.number in front} if several else {}),
            "best_so_far": attributes.get("best_value"),
            **({} if verdict is None else finalist_values(verdict, trial.number)),
            "num_epochs": trial.num_epochs,
            "end_reason": attributes.get("end_reason"),
            **{path: trial.params.get(path) for path in config.space},
            "num_parameters": attributes.get("num_parameters"),
            **{name: attributes.get(name) for name in config.study.costs},
            "seconds": attributes.get("seconds"),
            "diagnosis": "; ".join(f["tag"] for f in attributes.get("diagnosis", ())) or None,
        }


def _to_csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else ["number"])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _to_html(
    run: RunFolder,
    config: SearchConfig,
    study: SearchStudy,
    rows: Sequence[dict[str, Any]],
    winner: TrialSummary | None,
    verdict: Verdict | None,
) -> str:
    trials = study.trials()
    metrics = _read_json(run.best / "metrics.json")
    figures = [
        *_front_figures(trials, config, winner),
        ("Every trial", _history_figure(trials, config)),
        (_curves_title(trials), _curves_figure(trials, config, winner)),
        ("Parameters", _parameters_figure(trials, config)),
        ("What mattered", _importance_figure(study, config)),
        *_confusion_figures(run, metrics, _owner(study, winner)),
    ]
    parts = [
        f"<!doctype html><html lang='en'><meta charset='utf-8'>"
        f"<meta name='viewport' content='width=device-width'>"
        f"<title>{html.escape(config.study.name)}</title><style>{STYLE}</style>",
        f"<h1>{html.escape(config.study.name)}</h1>",
        f"<p>{html.escape(_headline(trials, config) + _origin(study))}</p>",
        _first_decision_html(config, study, trials),
        _summary_html(trials, config, winner, metrics, _owner(study, winner)),
        "" if verdict is None else _verdict_html(verdict),
    ]
    with_script = True
    for title, figure in figures:
        if figure is not None:
            parts.append(f"<h2>{title}</h2>{_figure_html(figure, with_script=with_script)}")
            with_script = False
    parts.append(_diagnosis_html(trials, [row["number"] for row in rows]))
    parts.append(f"<h2>Leaderboard</h2>{_table_html(rows, winner)}</html>\n")
    return "\n".join(parts)


def _figure_html(figure: go.Figure, *, with_script: bool) -> str:
    figure.update_layout(
        template="plotly_white", margin=MARGIN | figure.layout.margin.to_plotly_json()
    )
    text: str = figure.to_html(full_html=False, include_plotlyjs=with_script)
    return text


def _headline(trials: Sequence[TrialSummary], config: SearchConfig) -> str:
    counts = {state: sum(t.outcome == state for t in trials) for state in COLOURS}
    counts["INFEASIBLE"] = sum(t.outcome == "INFEASIBLE" for t in trials)
    states = ", ".join(f"{n} {state.lower()}" for state, n in counts.items() if n)
    objectives = ", ".join(f"{direction} {name}" for name, direction in config.study.objectives)
    bounds = "".join(f"; {constraint}" for constraint in config.study.constraints)
    return f"{len(trials)} trials ({states or 'none yet'}), {objectives}{bounds}"


def _origin(study: SearchStudy) -> str:
    """Where trials were carried over from, when the space changed, and to."""
    text, source = "", study.metadata.carried_from
    if source is not None:
        text = (
            f"; {source['num_carried_over']} of the {source['num_trials']} trials of study "
            f"{source['study']} were carried over, when the space changed"
        )
    if study.metadata.carried_to is not None:
        text += f"; goes on as study {study.metadata.carried_to}, in a changed space"
    return text


def _first_decision_html(
    config: SearchConfig, study: SearchStudy, trials: Sequence[TrialSummary]
) -> str:
    """Where trials were first compared, and why there."""
    curves = [trial.curve_to(config.train.max_epochs) for trial in trials]
    text = first_level_text(config, read_first_levels(study.metadata.first_levels), curves)
    return "" if text is None else f"<p>{html.escape(f'First decision at {text}')}</p>"


def _summary_html(
    trials: Sequence[TrialSummary],
    config: SearchConfig,
    winner: TrialSummary | None,
    metrics: dict[str, Any] | None,
    owner: int | None,
) -> str:
    """The winner, and what best/ reaches, which may be another trial's (`owner`)."""
    if winner is None:
        return "<p>No trial has run to its end yet.</p>"
    cards = [
        ("winner", f"trial {winner.number}"),
        *(
            (f"its {name} as a trial", _format(value))
            for name, value in objective_values(winner, config.study).items()
        ),
    ]
    default = next((t for t in trials if t.number == 0 and t.value is not None), None)
    if default is not None:
        cards.append((f"the default's {config.study.metric}", _format(default.value)))
    for split in ("val", "test"):
        if metrics and metrics.get(split):
            what = "retrained" if owner is None else f"of trial {owner}, which is in best/"
            cards.append((f"{split} top-1, {what}", _format(metrics[split]["top1"])))
    items = "".join(f"<div>{html.escape(name)}<b>{value}</b></div>" for name, value in cards)
    params = ", ".join(f"{path} = {_format(v)}" for path, v in winner.params.items())
    return f"<div class='summary'>{items}</div><p>{html.escape(params)}</p>"


def _owner(study: SearchStudy, winner: TrialSummary | None) -> int | None:
    """The trial that best/ is of; None if that is the winner."""
    delivered = study.metadata.delivered_trial
    return None if winner is None or delivered == winner.number else delivered


def _verdict_html(verdict: Verdict) -> str:
    """Who won on fresh seeds, and how surely."""
    text = [f"Gain: {gain_text(verdict)}."]
    if not verdict.means:
        return f"<p>{html.escape(text[0])}</p>"
    text += [f"The winner is {epochs_text(verdict)}.", correction_text(verdict)]
    rows = []
    for number in sorted(verdict.means, key=lambda n: n != verdict.winner):
        name = f"trial {number}" + (" (the default)" if number == DEFAULT else "")
        gain = verdict.gains.get(number)
        cells = (name, mean_text(verdict, number), "-" if gain is None else signed_text(gain))
        style = " class='winner'" if number == verdict.winner else ""
        rows.append(
            f"<tr{style}>" + "".join(f"<td>{html.escape(c)}</td>" for c in cells) + "</tr>"
        )
    head = "".join(f"<th>{name}</th>" for name in ("finalist", "mean", "gain over the default"))
    return (
        f"<h2>Finalists</h2><p>{html.escape(' '.join(text))}</p><div class='scroll'>"
        f"<table class='text'><tr>{head}</tr>{''.join(rows)}</table></div>"
    )


def _front_figures(
    trials: Sequence[TrialSummary], config: SearchConfig, winner: TrialSummary | None
) -> Iterator[tuple[str, go.Figure]]:
    """The metric over each other objective, with the Pareto front, where there are several."""
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
            y=[_value_so_far(trial) for trial in chosen],
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


def _value_so_far(trial: TrialSummary) -> float | None:
    return trial.value if trial.value is not None else trial.attributes.get("best_value")


def _history_figure(trials: Sequence[TrialSummary], config: SearchConfig) -> go.Figure:
    figure = go.Figure()
    pick = config.study.objective.best
    values = [(t, _value_so_far(t)) for t in trials]
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
        # One that stopped may win, where finalists are trained anew.
        may_win = trial.state == "COMPLETE" or (
            config.compares_finalists and trial.state != "FAIL"
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


def _curves_title(trials: Sequence[TrialSummary]) -> str:
    if len(trials) <= MAX_CURVES:
        return "Learning curves"
    return f"Learning curves (the last {MAX_CURVES} of {len(trials)}, the winner, the default)"


def _curves_figure(
    trials: Sequence[TrialSummary], config: SearchConfig, winner: TrialSummary | None
) -> go.Figure:
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


def _parameters_figure(trials: Sequence[TrialSummary], config: SearchConfig) -> go.Figure | None:
    """Parallel coordinates over the parameters of trials with any value."""
    values = [(t, _value_so_far(t)) for t in trials]
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


def _importance_figure(study: SearchStudy, config: SearchConfig) -> go.Figure | None:
    shares = importances(study, config)
    if not shares:
        return None
    is_by_model = config.scheduler.name == "freeze_thaw"
    by = ", by the model of curves" if is_by_model else " among complete trials"
    names = list(shares)[::-1]
    bars = go.Bar(x=[shares[name] for name in names], y=names, orientation="h")
    return go.Figure(bars, layout={"height": 120 + 40 * len(names)}).update_xaxes(
        title=f"importance{by}"
    ).update_yaxes(automargin=True)  # fmt: skip


def _confusion_figures(
    run: RunFolder, metrics: dict[str, Any] | None, owner: int | None
) -> Iterator[tuple[str, go.Figure]]:
    classes = _read_json(run.best / "classes.json")
    for split in ("test", "val"):
        if metrics and classes and metrics.get(split):
            matrix = metrics[split]["confusion_matrix"]
            names = [str(name) for name in classes]
            heatmap = go.Heatmap(
                z=matrix, x=names, y=names, colorscale="Blues",
                text=matrix if len(names) <= 30 else None,
                texttemplate="%{text}" if len(names) <= 30 else None,
                hovertemplate="true %{y}, predicted %{x}: %{z}<extra></extra>",
            )  # fmt: skip
            figure = go.Figure(heatmap, layout={"height": 640})
            figure.update_xaxes(title="predicted", type="category")
            figure.update_yaxes(title="true", type="category", autorange="reversed")
            yield f"Confusions on {split}" + ("" if owner is None else f", trial {owner}"), figure
            return


def _diagnosis_html(trials: Sequence[TrialSummary], ranking: Sequence[int]) -> str:
    """What the trials' own curves say: each finding with its trials, the best-ranked first."""
    found: dict[str, list[tuple[int, dict[str, str]]]] = {}
    by_number = {trial.number: trial for trial in trials}
    for number in ranking:
        for finding in by_number[number].attributes.get("diagnosis", ()):
            found.setdefault(finding["tag"], []).append((number, finding))
    if not found:
        return ""
    rows = []
    for tag, of_trials in sorted(found.items(), key=lambda item: -len(item[1])):
        first, finding = of_trials[0]
        numbers = ", ".join(str(number) for number, _ in of_trials[:MAX_NUMBERS])
        more = len(of_trials) - MAX_NUMBERS
        cells = (
            tag,
            numbers + (f" and {more} more" if more > 0 else ""),
            f"trial {first}: {finding['evidence']}",
            finding["remedy"],
        )
        rows.append("".join(f"<td>{html.escape(cell)}</td>" for cell in cells))
    head = "".join(f"<th>{name}</th>" for name in ("finding", "trials", "such as", "remedy"))
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f"<h2>Diagnosis</h2><div class='scroll'><table class='text'><tr>{head}</tr>{body}"
        "</table></div>"
    )


def _table_html(rows: Sequence[dict[str, Any]], winner: TrialSummary | None) -> str:
    if not rows:
        return "<p>No trial yet.</p>"
    head = "".join(f"<th>{html.escape(name)}</th>" for name in rows[0])
    body = []
    for row in rows:
        chosen = " class='winner'" if winner and row["number"] == winner.number else ""
        cells = "".join(f"<td>{html.escape(_format(value))}</td>" for value in row.values())
        body.append(f"<tr{chosen}>{cells}</tr>")
    return f"<div class='scroll'><table><tr>{head}</tr>{''.join(body)}</table></div>"


def _hover(trial: TrialSummary) -> str:
    params = "<br>".join(f"{html.escape(p)} = {_format(v)}" for p, v in trial.params.items())
    reason = html.escape(str(trial.attributes.get("end_reason", "")))
    return f"trial {trial.number}: {reason}<br>{params}"


def _format(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _read_json(path: Any) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
