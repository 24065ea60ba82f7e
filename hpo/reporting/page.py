"""report.html: the results of a run as a single page that needs no network."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from hpo.config.schema import SearchConfig
from hpo.reporting.figures import (
    confusion_figure,
    curves_figure,
    curves_title,
    front_figures,
    history_figure,
    importance_figure,
    parameters_figure,
)
from hpo.reporting.health import Searched, health_cards
from hpo.reporting.leaderboard import format_value
from hpo.run_folder import RunFolder
from hpo.schedulers.first_rung import first_rung_text, read_first_rungs
from hpo.selection.importances import importances
from hpo.selection.selection import objective_values
from hpo.selection.verdict import DEFAULT, Verdict
from hpo.selection.verdict_text import (
    correction_text,
    epochs_text,
    gain_text,
    mean_text,
    signed_text,
)
from hpo.study.study import SearchStudy
from hpo.study.trial import TrialStatus, TrialSummary

MAX_TRIALS_OF_A_FINDING: Final = 20
MAX_CONFUSIONS: Final = 30
MARGIN: Final = {"l": 60, "r": 20, "t": 30, "b": 50}


@dataclass(frozen=True)
class Table:
    """A table of texts, which the template escapes.

    Attributes:
        head: The names of the columns.
        rows: The texts of the cells, row by row, each as long as `head`.
        winner: The index of the row to mark as the winner's; None: no row.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    winner: int | None = None


def render_page(
    run: RunFolder,
    config: SearchConfig,
    study: SearchStudy,
    leaderboard: Sequence[dict[str, Any]],
    winner: TrialSummary | None,
    verdict: Verdict | None,
) -> str:
    """The HTML of the page.

    Args:
        run: The run's folder; best/, if it exists, has the delivered model's metrics.
        config: The config of the search.
        study: The study of the search.
        leaderboard: The rows of leaderboard_rows.
        winner: The trial that won or leads; None: no trial may win yet.
        verdict: The finalists' comparison on fresh seeds; None: no comparison (yet).
    """
    trials = study.trials()
    metrics = _read_json(run.best / "metrics.json")
    classes = _read_json(run.best / "classes.json")
    delivered = other_delivered(study, winner)
    shares = importances(study, config)
    health = health_cards(Searched.of(config, study, trials, verdict, shares))
    figures = [
        *front_figures(trials, config, winner),
        ("Every trial", history_figure(trials, config)),
        (curves_title(trials), curves_figure(trials, config, winner)),
        ("Parameters", parameters_figure(trials, config)),
        ("What mattered", importance_figure(shares, config)),
        *_confusions(metrics, classes, delivered),
    ]
    template = Environment(
        loader=PackageLoader("hpo.reporting", "templates"), autoescape=True
    ).get_template("report.html")
    return template.render(
        name=config.study.name,
        headline=_headline(trials, config) + _origin(study),
        first_rung=_first_rung(config, study, trials),
        cards=[] if winner is None else _cards(trials, config, winner, metrics, delivered),
        params=[] if winner is None else _params(winner),
        verdict_text=None if verdict is None else _verdict_text(verdict),
        finalists=None if verdict is None else _finalists(verdict),
        health=health,
        figures=list(_as_html((title, figure) for title, figure in figures if figure)),
        confusions=_most_confused(metrics, delivered),
        diagnosis=_diagnosis(trials, [row["number"] for row in leaderboard]),
        leaderboard=_leaderboard(leaderboard, winner),
    )


def _as_html(figures: Iterator[tuple[str, go.Figure]]) -> Iterator[tuple[str, Markup]]:
    """Titles with their figures as HTML; the first figure includes plotly's script."""
    for position, (title, figure) in enumerate(figures):
        figure.update_layout(
            template="plotly_white", margin=MARGIN | figure.layout.margin.to_plotly_json()
        )
        text = figure.to_html(full_html=False, include_plotlyjs=position == 0)
        yield title, Markup(text)  # plotly escapes texts in figures


def _headline(trials: Sequence[TrialSummary], config: SearchConfig) -> str:
    counts = {status: sum(t.outcome == status for t in trials) for status in _ORDER}
    states = ", ".join(f"{n} {status.lower()}" for status, n in counts.items() if n)
    objectives = ", ".join(f"{direction} {name}" for name, direction in config.study.objectives)
    bounds = "".join(f"; {constraint}" for constraint in config.study.constraints)
    return f"{len(trials)} trials ({states or 'none yet'}), {objectives}{bounds}"


_ORDER: Final = (
    TrialStatus.COMPLETE,
    TrialStatus.PRUNED,
    TrialStatus.FAIL,
    TrialStatus.RUNNING,
    TrialStatus.INFEASIBLE,
)


def _origin(study: SearchStudy) -> str:
    """The text about trials carried over from and to other studies; empty if there are none."""
    text, source = "", study.metadata.carried_from
    if source is not None:
        text = (
            f"; {source['num_carried_over']} of the {source['num_trials']} trials of study "
            f"{source['study']} were carried over, when the space changed"
        )
    if study.metadata.carried_to is not None:
        text += f"; goes on as study {study.metadata.carried_to}, in a changed space"
    return text


def _first_rung(
    config: SearchConfig, study: SearchStudy, trials: Sequence[TrialSummary]
) -> str | None:
    """The text that names the first rung and its reason; None: the scheduler has no rungs."""
    curves = [trial.curve_to(config.train.max_epochs) for trial in trials]
    text = first_rung_text(config, read_first_rungs(study.metadata.first_levels), curves)
    return None if text is None else f"First decision at {text}"


def _cards(
    trials: Sequence[TrialSummary],
    config: SearchConfig,
    winner: TrialSummary,
    metrics: dict[str, Any] | None,
    delivered: int | None,
) -> list[tuple[str, str]]:
    """Names and texts of the key figures: of the winner, the default, and the model in best/."""
    cards = [("winner", f"trial {winner.number}")]
    cards += [
        (f"its {name} as a trial", format_value(value))
        for name, value in objective_values(winner, config.study).items()
    ]
    default = next((t for t in trials if t.number == 0 and t.value is not None), None)
    if default is not None:
        cards.append((f"the default's {config.study.metric}", format_value(default.value)))
    for split in ("val", "test"):
        if metrics and metrics.get(split):
            what = "retrained" if delivered is None else f"of trial {delivered}, which is in best/"
            cards.append((f"{split} top-1, {what}", format_value(metrics[split]["top1"])))
    return cards


def _params(winner: TrialSummary) -> list[str]:
    return [f"{path} = {format_value(value)}" for path, value in winner.params.items()]


def other_delivered(study: SearchStudy, winner: TrialSummary | None) -> int | None:
    """The trial whose model is in best/, if it is not the winner; else None."""
    delivered = study.metadata.delivered_trial
    return None if winner is None or delivered == winner.number else delivered


def _verdict_text(verdict: Verdict) -> str:
    text = [f"Gain: {gain_text(verdict)}."]
    if verdict.means:
        text += [f"The winner is {epochs_text(verdict)}.", correction_text(verdict)]
    return " ".join(text)


def _finalists(verdict: Verdict) -> Table | None:
    """The table of means on fresh seeds and gains over the default, the winner first."""
    if not verdict.means:
        return None
    rows = []
    for number in sorted(verdict.means, key=lambda n: n != verdict.winner):
        name = f"trial {number}" + (" (the default)" if number == DEFAULT else "")
        gain = verdict.gains.get(number)
        rows.append((name, mean_text(verdict, number), "-" if gain is None else signed_text(gain)))
    is_won = verdict.winner in verdict.means
    head = ("finalist", "mean", "gain over the default")
    return Table(head, tuple(rows), winner=0 if is_won else None)


def _confusions(
    metrics: dict[str, Any] | None, classes: list[str] | None, delivered: int | None
) -> Iterator[tuple[str, go.Figure]]:
    """Title and confusion matrix of the delivered model, unless it has too many classes."""
    title, of_split = _evaluated(metrics, delivered)
    if classes and of_split.get("confusion_matrix"):
        yield title, confusion_figure(of_split["confusion_matrix"], classes)


def _most_confused(
    metrics: dict[str, Any] | None, delivered: int | None
) -> tuple[str, Table] | None:
    """Title and table of confusions of a delivered model whose matrix would be too large."""
    title, of_split = _evaluated(metrics, delivered)
    if of_split.get("confusion_matrix") or not of_split.get("most_confused"):
        return None
    found, per_class = of_split["most_confused"], of_split["per_class"]
    shown = found[:MAX_CONFUSIONS]
    if len(shown) < len(found):
        title += f", the {MAX_CONFUSIONS} most frequent"
    rows = tuple(
        (
            one["true"],
            one["predicted"],
            str(one["num_images"]),
            f"{one['num_images'] / per_class[one['true']]['support']:.0%}",
        )
        for one in shown
    )
    return title, Table(("class", "predicted as", "images", "share of the class"), rows)


def _evaluated(
    metrics: dict[str, Any] | None, delivered: int | None
) -> tuple[str, dict[str, Any]]:
    """The title of confusions with the metrics of their split: test, or val without a test."""
    for split in ("test", "val"):
        if metrics and metrics.get(split):
            of_trial = "" if delivered is None else f", trial {delivered}"
            return f"Confusions on {split}{of_trial}", metrics[split]
    return "", {}


def _diagnosis(trials: Sequence[TrialSummary], ranking: Sequence[int]) -> Table | None:
    """The table of findings from learning curves, each with its trials, the best-ranked first."""
    found: dict[str, list[tuple[int, dict[str, str]]]] = {}
    by_number = {trial.number: trial for trial in trials}
    for number in ranking:
        for finding in by_number[number].attributes.get("diagnosis", ()):
            found.setdefault(finding["tag"], []).append((number, finding))
    if not found:
        return None
    rows = []
    for tag, of_trials in sorted(found.items(), key=lambda item: -len(item[1])):
        first, finding = of_trials[0]
        numbers = ", ".join(str(number) for number, _ in of_trials[:MAX_TRIALS_OF_A_FINDING])
        more = len(of_trials) - MAX_TRIALS_OF_A_FINDING
        numbers += f" and {more} more" if more > 0 else ""
        rows.append((tag, numbers, f"trial {first}: {finding['evidence']}", finding["remedy"]))
    return Table(("finding", "trials", "such as", "remedy"), tuple(rows))


def _leaderboard(rows: Sequence[dict[str, Any]], winner: TrialSummary | None) -> Table | None:
    if not rows:
        return None
    cells = tuple(tuple(format_value(value) for value in row.values()) for row in rows)
    numbers = [row["number"] for row in rows]
    marked = None if winner is None else numbers.index(winner.number)
    return Table(tuple(rows[0]), cells, winner=marked)


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
