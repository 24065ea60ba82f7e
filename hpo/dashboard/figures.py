"""Figures of a study for its page: few, small, and made at most once a minute."""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import plotly.graph_objects as go

from hpo.dashboard.study_note import SearchState
from hpo.reporting.page.curves import curve_figures
from hpo.reporting.page.history import best_over_cost, cost_unit, front_figures
from hpo.reporting.page.parts import BEST, as_json, thinned, titled
from hpo.reporting.page.reported import Reported
from hpo.reporting.page.slots import slot_figures
from hpo.reporting.words import is_paused
from hpo.run_folder import RunFolder
from hpo.selection.calibration import Calibration, calibration
from hpo.selection.finalists import winner_of
from hpo.selection.ranking import model_of
from hpo.selection.selection import pareto_front
from hpo.study.trial import TrialStatus, TrialSummary

SECONDS_BETWEEN_FIGURES: Final = 60.0
PREFIX: Final = "hpo-"  # of the names; page.css knows it
MOST_CURVES: Final = 60
MOST_POINTS: Final = 300
MOST_READ: Final = 500  # trials whose files are read, and that the surrogate learns from
MOST_FORECASTS: Final = 4
FORECASTS: Final = ("#9a6bd1", "#d9730d", "#3b82d6", "#d64545")
FAINT: Final = "rgba(128, 128, 128, 0.25)"
NO_FOLDER: Final = RunFolder(Path(os.devnull))  # the run's folder is not known: it has no files


class StudyFigures:
    """A study's figures; they are made in a thread, so that no request waits for them.

    Attributes:
        calibration: The surrogate's forecasts against what came, as of the latest figures; None:
            not known.
    """

    calibration: Calibration | None = None

    def __init__(self) -> None:
        self._latest: dict[str, str] = {}
        self._next_time, self._thread = 0.0, threading.Thread()
        self._is_old = True

    def latest(self, state: SearchState, *, has_news: bool) -> dict[str, str]:
        """The latest figures, as JSON by name; has new ones made if there is something new."""
        self._is_old = self._is_old or has_news
        is_due = self._is_old and time.monotonic() > self._next_time
        if is_due and state.trials and not self._thread.is_alive():
            self._is_old, self._next_time = False, time.monotonic() + SECONDS_BETWEEN_FIGURES
            self._thread = threading.Thread(target=self._make, args=(state,), daemon=True)
            self._thread.start()
        return self._latest

    def _make(self, state: SearchState) -> None:
        self._latest = {f"{PREFIX}{name}": as_json(one) for name, one in study_figures(state)}
        self.calibration = calibration(state.study, state.config, _latest(state.trials))


def study_figures(state: SearchState) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and figure: curves with forecasts, the best value by cost, slots, the front."""
    winner = winner_of(state.config, state.trials, state.verdict)
    folder = state.folder or NO_FOLDER
    every = Reported(
        folder if len(state.trials) <= MOST_READ else NO_FOLDER,
        state.config, state.study, state.trials, winner, state.verdict,
    )  # fmt: skip
    latest = replace(every, run=folder, trials=_latest(state.trials))
    for one in curve_figures(every, MOST_CURVES):
        has_any = _add_forecasts(one.figure, latest, state.line)
        fans = "; fans: forecasts" if has_any else ""
        yield one.name, _as_shown(one.figure, f"Learning curves; dotted: rungs{fans}")
    if steps := best_over_cost(every):
        yield "cost", _best_by_cost(every, steps)
    for one in slot_figures(latest):
        yield one.name, _as_shown(one.figure, "What each slot trained, by trial number")
    for one in front_figures(replace(every, trials=_near_front(every))):
        yield one.name, _as_shown(one.figure, "The Pareto front")


def _latest(trials: Sequence[TrialSummary]) -> list[TrialSummary]:
    """The trials that run or are paused, and the last ones."""
    ended = [trial for trial in trials if trial.state != TrialStatus.RUNNING][-MOST_READ:]
    shown = {trial.number for trial in ended}
    return [t for t in trials if t.state == TrialStatus.RUNNING or t.number in shown]


def _near_front(found: Reported) -> list[TrialSummary]:
    front = {trial.number for trial in pareto_front(found.trials, found.config.study)}
    others = [trial for trial in found.trials if trial.number not in front]
    shown = front | {trial.number for trial in thinned(others, MOST_POINTS)}
    return [trial for trial in found.trials if trial.number in shown]


def _best_by_cost(found: Reported, steps: Sequence[tuple[float, float]]) -> dict[str, Any]:
    figure, metric, unit = go.Figure(), found.config.study.metric, cost_unit(found)
    figure.add_scatter(
        x=[x for x, _ in steps], y=[y for _, y in steps], mode="lines", name="best so far",
        line={"shape": "hv", "color": BEST, "width": 2.5}, showlegend=False,
        hovertemplate="%{y:.4f} after %{x:,.0f}<extra></extra>",
    )  # fmt: skip
    return _as_shown(titled(figure, unit, metric), f"Best {metric} by what it cost")


def _add_forecasts(figure: go.Figure, found: Reported, line: Sequence[int]) -> bool:
    """Adds what the search's own surrogate expects of trials that run or are next in line.

    Returns whether it expects anything.
    """
    state = found.study.metadata.model_state
    if found.config.scheduler.name != "freeze_thaw" or state is None:
        return False
    levels = found.study.metadata.first_levels
    model = model_of(found.config, found.trials, state, levels)
    if model.model_state is None:  # an earlier version's, whose forecasts were others
        return False
    forecasts = ((number, model.forecast(number)) for number in _to_forecast(found, line))
    known = [(number, expected) for number, expected in forecasts if expected is not None]
    for (number, expected), colour in zip(known, FORECASTS, strict=False):
        epochs, name = list(expected.epochs), f"forecast of {number}"
        figure.add_scatter(
            x=[*epochs, *reversed(epochs)], y=[*expected.high, *reversed(expected.low)],
            mode="lines", fill="toself", fillcolor=colour, opacity=0.2, line={"width": 0},
            hoverinfo="skip", legendgroup=name, showlegend=False,
        )  # fmt: skip
        figure.add_scatter(
            x=epochs, y=list(expected.middle), name=name, legendgroup=name, mode="lines",
            line={"color": colour, "width": 2, "dash": "dash"},
            hovertemplate=f"trial {number}, epoch %{{x}}: about %{{y:.4f}}<extra></extra>",
        )  # fmt: skip
    return bool(known)


def _to_forecast(found: Reported, line: Sequence[int]) -> list[int]:
    """Numbers of the trials that run, and of the paused ones that are resumed first."""
    going = [t for t in found.trials if t.state == TrialStatus.RUNNING and t.curve]
    running = [t.number for t in going if not is_paused(t, found.config)]
    paused = {trial.number for trial in going} - {*running}
    return [*running, *(number for number in line if number in paused)][:MOST_FORECASTS]


def _as_shown(figure: go.Figure, title: str) -> dict[str, Any]:
    """The figure as plotly's JSON, with a title, and colours for pages by day and by night."""
    figure.update_layout(
        template=None, height=None, paper_bgcolor="rgba(0, 0, 0, 0)",
        plot_bgcolor="rgba(0, 0, 0, 0)",
        title={"text": f"<b>{title}</b>", "x": 0, "xref": "paper", "font": {"size": 16}},
        legend={"orientation": "h", "x": 0, "y": -0.22, "yanchor": "top"},
        margin={"l": 60, "r": 10, "t": 50, "b": 50},
    )  # fmt: skip
    figure.update_xaxes(gridcolor=FAINT, zerolinecolor=FAINT)
    figure.update_yaxes(gridcolor=FAINT, zerolinecolor=FAINT)
    shown: dict[str, Any] = figure.to_plotly_json()
    return shown
