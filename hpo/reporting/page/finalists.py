"""The finalists: their values on fresh seeds as a figure and as a table."""

from collections.abc import Iterator

import plotly.graph_objects as go

from hpo.reporting.page.parts import BEST, COLOURS, Figure, Table, error_bars, titled
from hpo.reporting.page.reported import Reported
from hpo.selection.verdict import DEFAULT, Verdict
from hpo.selection.verdict_text import (
    correction_text,
    epochs_text,
    gain_text,
    mean_text,
    signed_text,
)


def finalists_text(verdict: Verdict) -> str:
    """The gain, and what the intervals hold for."""
    text = [f"Gain: {gain_text(verdict)}."]
    if verdict.means:
        text += [f"The winner is {epochs_text(verdict)}.", correction_text(verdict)]
    return " ".join(text)


def finalists_table(verdict: Verdict) -> Table | None:
    """Means on fresh seeds and gains over the default, the winner first; None: no comparison."""
    if not verdict.means:
        return None
    rows = []
    for number in _winner_first(verdict):
        gain = verdict.gains.get(number)
        told = "-" if gain is None else signed_text(gain)
        rows.append((finalist_name(number), mean_text(verdict, number), told))
    is_won = verdict.winner in verdict.means
    head = ("finalist", "mean", "gain over the default")
    return Table(head, tuple(rows), winner=0 if is_won else None)


def finalist_name(number: int) -> str:
    """What a finalist is called."""
    return f"trial {number}" + (" (the default)" if number == DEFAULT else "")


def finalist_figures(found: Reported) -> Iterator[Figure]:
    """Each finalist's mean with its interval, and its values on single seeds."""
    verdict = found.verdict
    if verdict is None or not verdict.means:
        return
    numbers = _winner_first(verdict)
    each = [verdict.means[number] for number in numbers]
    figure = go.Figure()
    trainings = [
        one
        for one in found.study.metadata.fresh_trainings.values()
        if one["trial"] in verdict.means and one["value"] is not None
    ]
    figure.add_scatter(
        x=[one["value"] for one in trainings],
        y=[finalist_name(one["trial"]) for one in trainings],
        customdata=[one["trial"] for one in trainings], mode="markers", name="one seed",
        marker={"symbol": "line-ns-open", "size": 14, "color": COLOURS["running"]},
        hovertemplate="%{y}: %{x:.4f} on one seed<extra></extra>",
    )  # fmt: skip
    has_intervals = all(one.margin is not None for one in each)
    figure.add_scatter(
        x=[one.mean for one in each], y=[finalist_name(number) for number in numbers],
        customdata=numbers, mode="markers", name="mean",
        marker={
            "size": 12,
            "color": [BEST if n == verdict.winner else COLOURS["complete"] for n in numbers],
        },
        error_x=error_bars(each),
        hovertemplate="%{y}: mean %{x:.4f}<extra></extra>",
    )  # fmt: skip
    figure.update_yaxes(
        categoryorder="array", categoryarray=[finalist_name(n) for n in numbers[::-1]],
        type="category",
    )  # fmt: skip
    lines = "; lines: 95 % for all of them at once" if has_intervals else ""
    text = f"{verdict.metric} of the finalists on fresh seeds, the winner on top{lines}."
    titled(figure, verdict.metric, "")
    yield Figure("finalists", text, figure, height=170 + 38 * len(numbers))


def _winner_first(verdict: Verdict) -> list[int]:
    return sorted(verdict.means, key=lambda number: number != verdict.winner)
