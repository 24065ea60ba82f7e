"""The delivered model by class: confusions, classes, calibration."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

import plotly.graph_objects as go

from hpo.reporting.page.parts import COLOURS, Figure, Table, labels, percent, titled
from hpo.reporting.page.reported import Reported

MOST_CLASSES: Final = 30  # of a matrix
MOST_CONFUSIONS: Final = 30
CLASS_COLUMNS: Final = ("class", "precision", "recall", "f1", "support")
WELL_CALIBRATED: Final = 0.02  # most mean difference that is no reason to act


def class_figures(found: Reported) -> Iterator[Figure]:
    """The confusion matrix, unless it is too large, and the calibration curve."""
    split, metrics = found.evaluated
    matrix = metrics.get("confusion_matrix")
    if matrix and len(matrix) == len(found.classes) <= MOST_CLASSES:
        yield _matrix(matrix, found.classes, split)
    if metrics.get("calibration"):
        yield _calibration(metrics["calibration"], split)


def _matrix(matrix: Sequence[Sequence[int]], classes: Sequence[str], split: str) -> Figure:
    """A heat map; rows are true classes, columns are predicted classes."""
    names = list(labels(classes).values())
    heatmap = go.Heatmap(
        z=[[math.log1p(count) for count in row] for row in matrix],
        text=[[count or "" for count in row] for row in matrix],
        x=names,
        y=names,
        colorscale=[[0, "rgba(59,130,214,0.03)"], [1, "rgba(59,130,214,0.75)"]],
        showscale=False,
        texttemplate="%{text}",
        hovertemplate="true %{y}, predicted %{x}: %{text}<extra></extra>",
        xgap=1,
        ygap=1,
    )
    figure = titled(go.Figure(heatmap), "predicted", "true")
    figure.update_layout(margin={"l": 90, "r": 10, "t": 30, "b": 90})
    square = {"scaleanchor": "y", "constrain": "domain"}
    angle = -45 if _is_long(names) else 0
    figure.update_xaxes(type="category", tickangle=angle, showgrid=False, **square)
    figure.update_yaxes(type="category", autorange="reversed", showgrid=False, constrain="domain")
    wrong = sum(sum(row) - row[i] for i, row in enumerate(matrix))
    total = sum(map(sum, matrix))
    worst = max(
        ((count, i, j) for i, row in enumerate(matrix) for j, count in enumerate(row) if i != j),
        default=(0, 0, 0),
    )
    text = f"{wrong} of {total} images of {split} are classified wrongly"
    if worst[0]:
        text += f"; {classes[worst[1]]} is taken for {classes[worst[2]]} most often ({worst[0]})"
    height = min(760, max(360, 150 + 32 * len(names)))
    width = 110 + 24 * len(names)
    return Figure("confusions", f"{text}.", figure, height, min_width=width)


def _is_long(names: Sequence[str]) -> bool:
    return max(map(len, names)) > 3


def _calibration(found: dict[str, Any], split: str) -> Figure:
    bins = [one for one in found["bins"] if one["num_images"]]
    figure = go.Figure()
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", name="as sure as right", hoverinfo="skip",
        line={"dash": "dash", "color": "#888"},
    )  # fmt: skip
    figure.add_scatter(
        x=[one["confidence"] for one in bins], y=[one["accuracy"] for one in bins],
        text=[f"{one['num_images']} images" for one in bins], mode="lines+markers",
        name="the model", line={"color": COLOURS["complete"], "width": 2},
        marker={"size": 8},
        hovertemplate="confidence %{x:.2f}, right %{y:.2f}, %{text}<extra></extra>",
    )  # fmt: skip
    titled(figure, "confidence", "share of right answers")
    figure.update_xaxes(range=[0, 1.02])
    figure.update_yaxes(range=[0, 1.02])
    num = sum(one["num_images"] for one in bins) or 1
    sure = sum(one["num_images"] * (one["confidence"] - one["accuracy"]) for one in bins) / num
    ece = found["ece"]
    text = (
        f"How often the model is right on {split}, by how sure it is: these differ by "
        f"{percent(ece, 1)} on average (expected calibration error)"
    )
    if ece <= WELL_CALIBRATED:
        text += "; its confidence can be taken as a probability"
    else:
        text += f"; it is too {'sure' if sure > 0 else 'unsure'} of itself on average"
    return Figure("calibration", f"{text}.", figure)


def class_rows(found: Reported) -> list[list[Any]]:
    """A row of CLASS_COLUMNS for each class; empty: no model is delivered."""
    per_class = found.evaluated[1].get("per_class") or {}
    return [
        [name, *(of_class.get(column) for column in CLASS_COLUMNS[1:])]
        for name, of_class in per_class.items()
    ]


def most_confused(found: Reported) -> tuple[str, Table] | None:
    """Sentence and table of confusions of a model whose matrix would be too large."""
    split, metrics = found.evaluated
    matrix = metrics.get("confusion_matrix")
    if matrix and len(matrix) <= MOST_CLASSES:
        return None
    pairs = metrics.get("most_confused") or []
    if not pairs:
        return None
    per_class = metrics["per_class"]
    rows = tuple(
        (
            one["true"],
            one["predicted"],
            str(one["num_images"]),
            percent(one["num_images"] / per_class[one["true"]]["support"]),
        )
        for one in pairs[:MOST_CONFUSIONS]
    )
    text = f"The most frequent confusions on {split}"
    if len(rows) < len(pairs):
        text += f", {MOST_CONFUSIONS} pairs of classes"
    return f"{text}.", Table(("class", "predicted as", "images", "share of the class"), rows)
