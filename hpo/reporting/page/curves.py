"""The figure of learning curves."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import plotly.graph_objects as go

from hpo.config.rungs import rungs
from hpo.reporting.page.parts import BEST, COLOURS, Figure, thinned, titled
from hpo.reporting.page.reported import Reported
from hpo.schedulers.asha import rung_epochs
from hpo.schedulers.first_rung import with_first_rung
from hpo.selection.verdict import DEFAULT
from hpo.study.trial import TrialSummary

MOST_CURVES: Final = 200


def curve_figures(found: Reported, most: int = MOST_CURVES) -> Iterator[Figure]:
    """Learning curves by state; of many trials half the best ones and some of the others."""
    with_curve = [trial for trial in found.trials if trial.curve]
    if not with_curve:
        return
    chosen = _chosen(found, with_curve, most)
    figure = go.Figure()
    for state, colour in COLOURS.items():
        of_state = [trial for trial in chosen if found.state(trial) == state]
        if of_state:
            _add(figure, of_state, state, {"color": colour, "width": 1.3}, opacity=0.75)
    _add_leaders(figure, found)
    epochs = rungs_of(found)
    for epoch in epochs:
        figure.add_vline(x=epoch, line_dash="dot", line_color="#888", line_width=1)
    text = _text(found, len(chosen), len(with_curve), epochs)
    yield Figure(
        "curves", f"{text} Click on a curve to see its trial.",
        titled(figure, "epoch", found.config.study.metric), height=480,
    )  # fmt: skip


def _text(found: Reported, num_shown: int, num: int, epochs: Sequence[int]) -> str:
    text = f"{found.config.study.metric} by epoch"
    if num_shown < num:
        text += (
            f", of {num_shown} of the {num} trials: the best, and others evenly over the search"
        )
    return f"{text}. Dotted: trials are compared at {_listed(epochs)}." if epochs else f"{text}."


def _add_leaders(figure: go.Figure, found: Reported) -> None:
    """Adds the curves of the default configuration and of the winner."""
    with_curve = {trial.number: trial for trial in found.trials if trial.curve}
    if DEFAULT in with_curve:
        dashed = {"color": "#888", "width": 3, "dash": "dash"}
        _add(figure, [with_curve[DEFAULT]], "the default", dashed)
    if found.winner is not None and found.winner.number in with_curve:
        name = f"trial {found.winner.number}, the {'winner' if found.verdict else 'best'}"
        _add(figure, [with_curve[found.winner.number]], name, {"color": BEST, "width": 4})


def rungs_of(found: Reported) -> tuple[int, ...]:
    """The epochs at which the scheduler compares trials; empty: it has none."""
    levels, length = found.study.metadata.first_levels, found.config.train.max_epochs
    scheduler = with_first_rung(found.config.scheduler, levels)
    if scheduler.name == "freeze_thaw":
        return tuple(epoch for epoch in rungs(length, scheduler.min_epochs) if epoch < length)
    has_rungs = scheduler.name in ("asha", "asha_promotion", "hyperband")
    return rung_epochs(scheduler, length) if has_rungs else ()


def _chosen(found: Reported, trials: Sequence[TrialSummary], most: int) -> list[TrialSummary]:
    if len(trials) <= most:
        return list(trials)
    objective = found.config.study.objective
    known = [(value, t) for t in trials if (value := found.value(t)) is not None]
    ranked = [t for _, t in sorted(known, key=lambda one: (objective.loss(one[0]), one[1].number))]
    best = {trial.number for trial in ranked[: most // 2]}
    others = [trial for trial in trials if trial.number not in best]
    shown = best | {t.number for t in thinned(others, most - len(best))}
    return [trial for trial in trials if trial.number in shown]


def _add(
    figure: go.Figure,
    trials: Sequence[TrialSummary],
    name: str,
    line: dict[str, Any],
    opacity: float = 1.0,
) -> None:
    """Adds curves as one trace, with a gap after each."""
    x, y, numbers = list[int | None](), list[float | None](), list[int | None]()
    for trial in trials:
        x += [*trial.curve, None]
        y += [*trial.curve.values(), None]
        numbers += [trial.number] * (len(trial.curve) + 1)
    has_point = any(len(trial.curve) == 1 for trial in trials)
    figure.add_scatter(
        x=x, y=y, customdata=numbers, name=name, line=line, opacity=opacity,
        mode="lines+markers" if has_point else "lines", marker={"size": 5},
        hovertemplate=f"trial %{{customdata}}, epoch %{{x}}: %{{y:.4f}}<extra>{name}</extra>",
    )  # fmt: skip


def _listed(epochs: Sequence[int]) -> str:
    *first, last = map(str, epochs)
    return f"epochs {', '.join(first)} and {last}" if first else f"epoch {last}"
