"""The page that compares several runs, side by side."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import plotly.graph_objects as go

from hpo.config.resumed import flat_settings
from hpo.reporting.leaderboard import format_value
from hpo.reporting.page.history import best_over_cost, cost_unit
from hpo.reporting.page.parts import Figure, Table, error_bars, labels, titled
from hpo.reporting.page.render import render
from hpo.reporting.page.reported import Reported
from hpo.reporting.page.summary import key_figures, summary

# Colours of runs, told apart by those who cannot see red or green, too. Source: Okabe and Ito,
# 2008, darkened where the contrast on white was below 3:1.
COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#c0679a", "#8a8a00", "#3f9fd0", "#888888")
QUESTIONS: Final = ("What was searched", "Why it ended", "The winner", "What it cost")
NAME: Final = "study.name"
Runs = Mapping[str, Reported]  # by the name that the page gives a run


def render_comparison(runs: Runs) -> str:
    """The HTML of the page."""
    now = datetime.now(UTC).strftime("%d %B %Y, %H:%M")
    return render(
        "comparison.html",
        data={},
        title=" and ".join(runs) if len(runs) == 2 else f"{len(runs)} runs",
        subtitle=f"Runs side by side, as of {now} UTC",
        results=_results(runs),
        intervals=list(_intervals(runs)),
        curves=list(_curves(runs)),
        settings=_settings(runs),
        winners=_winners(runs),
    )


def _results(runs: Runs) -> Table:
    """Answers and key figures, a column a run."""
    told = {
        name: {
            **{
                what: f"{text} ({more})" if more else text for what, text, more in key_figures(run)
            },
            **dict(summary(run, QUESTIONS)),
        }
        for name, run in runs.items()
    }
    return _side_by_side("", told)


def _settings(runs: Runs) -> Table | None:
    """The settings that differ, a column a run; None: there are none."""
    told = {
        name: {path: _text(value) for path, value in flat_settings(_dump(run)) if path != NAME}
        for name, run in runs.items()
    }
    table = _side_by_side("setting", told)
    rows = tuple(row for row in table.rows if len(set(row[1:])) > 1)
    return Table(table.head, rows) if rows else None


def _winners(runs: Runs) -> Table | None:
    """Params of each run's winner, or of its best trial so far; None: no run has one."""
    told = {
        name: {path: format_value(value) for path, value in run.winner.params.items()}
        for name, run in runs.items()
        if run.winner is not None
    }
    return _side_by_side("parameter", told) if told else None


def _side_by_side(what: str, told: Mapping[str, Mapping[str, str]]) -> Table:
    """A table with a row for each name that any column has."""
    names = dict.fromkeys(name for column in told.values() for name in column)
    rows = ((name, *(column.get(name, "-") for column in told.values())) for name in names)
    return Table((what, *told), tuple(rows))


def _curves(runs: Runs) -> Iterator[Figure]:
    """The best value over cost, all runs of a metric in one figure."""
    named = labels(runs)
    by_kind: dict[tuple[str, str], go.Figure] = {}
    for colour, (name, run) in zip(_colours(runs), runs.items(), strict=True):
        steps = best_over_cost(run)
        if steps:
            kind = (run.config.study.metric, cost_unit(run))
            by_kind.setdefault(kind, go.Figure()).add_scatter(
                x=[cost for cost, _ in steps], y=[value for _, value in steps],
                name=named[name], mode="lines",
                line={"shape": "hv", "color": colour, "width": 2.5},
                hovertemplate=f"{named[name]}: %{{y:.4f}} after %{{x:.0f}}<extra></extra>",
            )  # fmt: skip
    for i, ((metric, unit), figure) in enumerate(by_kind.items()):
        text = f"The best {metric} of single trainings so far, by {unit}."
        yield Figure(f"cost-{i}", text, titled(figure, unit, metric))


def _intervals(runs: Runs) -> Iterator[Figure]:
    """The winners' means on fresh seeds, all runs of a metric in one figure."""
    named, metrics = labels(runs), dict.fromkeys(r.config.study.metric for r in runs.values())
    for i, metric in enumerate(metrics):
        means = {
            named[name]: run.verdict.means[run.verdict.winner]
            for name, run in runs.items()
            if run.verdict and run.verdict.winner in run.verdict.means
            and run.config.study.metric == metric
        }  # fmt: skip
        if not means:
            continue
        each = list(means.values())
        figure = go.Figure()
        figure.add_scatter(
            x=[one.mean for one in each], y=list(means), mode="markers",
            marker={"size": 12, "color": COLOURS[0]},
            error_x=error_bars(each),
            hovertemplate="%{y}: mean %{x:.4f}<extra></extra>",
        )  # fmt: skip
        figure.update_yaxes(type="category", autorange="reversed")
        text = (
            f"{metric} of each run's winner on fresh seeds, with its 95 % interval; each run has "
            "its own seeds."
        )
        height = 150 + 38 * len(means)
        yield Figure(f"means-{i}", text, titled(figure, metric, ""), height=height)


def _colours(runs: Runs) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(len(runs))]


def _dump(run: Reported) -> dict[str, Any]:
    return run.config.model_dump(mode="json")


def _text(value: Any) -> str:
    return "none" if value is None else str(value)
