"""What sections of the page are made of: tables, figures with a sentence, and data for scripts."""

import base64
import gzip
import html
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import plotly.graph_objects as go
from markupsafe import Markup

from hpo.selection.intervals import Estimate

# Data of more characters are packed by gzip, which a browser unpacks in milliseconds.
MOST_PLAIN: Final = 200_000
HEIGHT: Final = 420  # pixels
MOST_LETTERS: Final = 20  # of a label
# One colour and one symbol a state; each colour has a contrast of 3:1 on white and on black.
COLOURS: Final = {
    "complete": "#3b82d6",
    "pruned": "#d9730d",
    "fail": "#d64545",
    "running": "#7a8794",
    "paused": "#9a6bd1",
    "infeasible": "#8a8a52",
}
SYMBOLS: Final = {
    "complete": "circle",
    "pruned": "triangle-down",
    "fail": "x",
    "running": "diamond",
    "paused": "square",
    "infeasible": "cross",
}
BEST: Final = "#25935a"


@dataclass(frozen=True)
class TrialLinks:
    """A table's cell that leads to trials.

    Attributes:
        numbers: The trials.
        num_more: How many trials more there are, which are not listed.
    """

    numbers: tuple[int, ...]
    num_more: int = 0


@dataclass(frozen=True)
class Table:
    """A table of texts, which the template escapes.

    Attributes:
        head: The names of the columns.
        rows: The cells, row by row, each as long as `head`.
        winner: The index of the row to mark as the winner's; None: no row.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str | TrialLinks, ...], ...]
    winner: int | None = None


@dataclass(frozen=True)
class Figure:
    """A figure, with the sentence that says what it shows.

    Attributes:
        name: Its name in the page, unique there.
        text: The sentence; it stands below the figure, and in its place for who cannot see it.
        figure: Data and layout; points that lead to a trial have its number as `customdata`.
        height: Pixels.
        min_width: Pixels; on a narrower screen the figure scrolls.
    """

    name: str
    text: str
    figure: go.Figure
    height: int = HEIGHT
    min_width: int = 0

    @property
    def json(self) -> str:
        """Data and layout as JSON."""
        self.figure.update_layout(height=self.height, template=None)
        text: str = self.figure.to_json()
        return text


def as_script(name: str, text: str) -> Markup:
    """A script element that holds a text, which the page's script reads by its id `name`.

    Args:
        name: The id, which must need no escaping.
        text: JSON, or a program; `<` in JSON is escaped, so that no text can end the element.
    """
    if len(text) > MOST_PLAIN:
        packed = base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode()
        return Markup(f"<script type='application/gzip' id='{name}'>{packed}</script>")
    plain = text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")
    return Markup(f"<script type='application/json' id='{name}'>{plain}</script>")


def as_json(value: Any) -> str:
    """JSON without spaces, with null for numbers that are none."""
    return json.dumps(_plain(value), separators=(",", ":"), allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(one) for one in value]
    return value


def thinned(some: Sequence[Any], most: int) -> list[Any]:
    """At most `most` of them, evenly spread, the first and the last included."""
    if len(some) <= most:
        return list(some)
    return [some[round(i * (len(some) - 1) / (most - 1))] for i in range(most)]


def labels(names: Iterable[str]) -> dict[str, str]:
    """A label for each name: its end, where names are long, in which plotly finds no markup."""
    whole = dict.fromkeys(names)
    ends = {n: n if len(n) <= MOST_LETTERS else f"…{n[1 - MOST_LETTERS :]}" for n in whole}
    chosen = ends if len(set(ends.values())) == len(ends) else {name: name for name in whole}
    return {name: html.escape(label, quote=False) for name, label in chosen.items()}


def error_bars(each: Sequence[Estimate]) -> dict[str, Any]:
    """Plotly's lines for the intervals of means; none where one seed gave no interval."""
    return {
        "type": "data",
        "symmetric": False,
        "visible": all(one.margin is not None for one in each),
        "array": [(one.mean if one.high is None else one.high) - one.mean for one in each],
        "arrayminus": [one.mean - (one.mean if one.low is None else one.low) for one in each],
        "color": COLOURS["running"],
        "thickness": 2,
    }


def percent(share: float, digits: int = 0) -> str:
    """A share as text, such as '97.0 %'."""
    return f"{100 * share:.{digits}f} %"


def titled(figure: go.Figure, x: str, y: str) -> go.Figure:
    """The figure with titles of its axes, and its legend above it."""
    figure.update_layout(
        xaxis_title_text=x,
        yaxis_title_text=y,
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        margin={"l": 64, "r": 20, "t": 56, "b": 56},
    )
    return figure
