"""The figure of slots over time."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

import plotly.graph_objects as go

from hpo.reporting.page.parts import COLOURS, Figure, percent, titled
from hpo.reporting.page.reported import Reported
from hpo.reporting.page.stretches import lanes

MOST_STRETCHES: Final = 2000
A_LANE: Final = 26  # pixels
MOST_HEIGHT: Final = 640


def slot_figures(found: Reported) -> Iterator[Figure]:
    """What each slot trained when; none if the run's folder does not tell."""
    shown = found.stretches[-MOST_STRETCHES:]
    if not shown:
        return
    slots, states = lanes(shown), {t.number: found.state(t) for t in found.trials}
    figure = go.Figure()
    for state, colour in COLOURS.items():
        chosen = [one for one in shown if states[one.trial] == state]
        if not chosen:
            continue
        figure.add_bar(
            orientation="h",
            base=[_time(one.begin) for one in chosen],
            x=[max(1.0, one.end - one.begin) * 1000 for one in chosen],  # milliseconds
            y=[f"slot {slots[one.process]}" for one in chosen],
            customdata=[one.trial for one in chosen],
            text=[str(one.trial) for one in chosen],
            hovertext=[
                f"trial {one.trial}, epochs {one.first_epoch} to {one.last_epoch}"
                for one in chosen
            ],
            hovertemplate="%{hovertext}<br>from %{base}<extra></extra>",
            textposition="inside",
            insidetextanchor="middle",
            name=state,
            marker={"color": colour, "line": {"color": "#888", "width": 0.5}},
        )
    num = len(set(slots.values()))
    names = [f"slot {slot}" for slot in range(num, 0, -1)]
    figure.update_layout(barmode="overlay")
    figure.update_yaxes(categoryorder="array", categoryarray=names, type="category")
    figure.update_xaxes(type="date")
    titled(figure, "time (UTC)", "")
    busy = sum(one.end - one.begin for one in shown)
    span = max(one.end for one in shown) - min(one.begin for one in shown)
    share = f"; the slots trained for {percent(busy / (num * span))} of the time" if span else ""
    cut = len(found.stretches) - len(shown)
    left_out = f" (the last {len(shown)} of {len(found.stretches)} stretches)" if cut else ""
    slot = f"each of {num} slots" if num > 1 else "the slot"
    text = f"Which trial {slot} trained when{left_out}{share}."
    yield Figure("slots", text, figure, min(MOST_HEIGHT, 150 + A_LANE * num))


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
