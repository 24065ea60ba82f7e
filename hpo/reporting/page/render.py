"""render_page: puts the sections of a search's page together."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from hpo.reporting.page.classes import CLASS_COLUMNS, class_figures, class_rows, most_confused
from hpo.reporting.page.curves import curve_figures
from hpo.reporting.page.delivered import (
    beside_texts,
    commands,
    config_text,
    distillation_table,
    extension_table,
    files_table,
    modalities_table,
    surroundings,
)
from hpo.reporting.page.faults import failures, findings
from hpo.reporting.page.finalists import finalist_figures, finalists_table, finalists_text
from hpo.reporting.page.history import front_figures, history_figures
from hpo.reporting.page.parameters import parameter_figures, slice_figures
from hpo.reporting.page.parts import Figure, as_json, as_script
from hpo.reporting.page.pictures import galleries
from hpo.reporting.page.reported import Reported
from hpo.reporting.page.slots import slot_figures
from hpo.reporting.page.summary import key_figures, summary
from hpo.reporting.page.trials import trials_data

SCRIPTS = ("embedded.js", "figures.js", "tables.js", "trial.js", "start.js")


def render_page(found: Reported, leaderboard: Sequence[Mapping[str, Any]]) -> str:
    """The HTML of a search's page.

    Args:
        found: The search.
        leaderboard: The rows of leaderboard_rows.
    """
    verdict = found.verdict
    classes = class_rows(found)
    now = datetime.now(UTC).strftime("%d %B %Y, %H:%M")
    return render(
        "report.html",
        title=found.config.study.name,
        subtitle=f"A search, in {found.run.path}, as of {now} UTC",
        cards=list(key_figures(found)),
        summary=summary(found),
        params={} if found.winner is None else found.winner.params,
        health=found.health,
        history=list(history_figures(found)),
        curves=list(curve_figures(found)),
        parameters=list(parameter_figures(found)),
        slices=list(slice_figures(found)),
        front=list(front_figures(found)),
        verdict_text=None if verdict is None else finalists_text(verdict),
        finalists=None if verdict is None else finalists_table(verdict),
        finalist_figures=list(finalist_figures(found)),
        extension=extension_table(found),
        modalities=modalities_table(found),
        split=found.evaluated[0],
        delivered=found.other_delivered,
        class_figures=list(class_figures(found)),
        most_confused=most_confused(found),
        num_classes=len(classes),
        galleries=galleries(found),
        files=files_table(found),
        beside=beside_texts(found),
        distillation=distillation_table(found),
        slots=list(slot_figures(found)),
        failures=failures(found),
        findings=findings(found, [row["number"] for row in leaderboard]),
        num_trials=len(found.trials),
        commands=commands(found),
        surroundings=surroundings(found),
        config=config_text(found),
        data={
            "trials": as_json(trials_data(found, leaderboard)),
            "classes": as_json({"columns": CLASS_COLUMNS, "rows": classes}),
        },
    )


def render(template: str, data: Mapping[str, str], **values: Any) -> str:
    """A page from a template, with its styles, its scripts and their data.

    Args:
        template: The template's name in templates/page.
        data: JSON texts that the page's scripts read, by name.
        values: What the template shows; lists of figures are embedded as well.
    """
    embedded = [as_script(f"data-{name}", text) for name, text in data.items()]
    embedded += [as_script(f"figure-{one.name}", one.json) for one in _figures(values.values())]
    return _templates().get_template(template).render(
        embedded=embedded, plotly=_plotly(), styles=_text("page.css"),
        scripts=Markup("\n").join(map(_text, SCRIPTS)), **values,
    )  # fmt: skip


def _figures(values: Iterable[Any]) -> Iterable[Figure]:
    lists = (value for value in values if isinstance(value, list))
    return (one for some in lists for one in some if isinstance(one, Figure))


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("hpo.reporting", "templates/page"), autoescape=True,
        trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined,
    )  # fmt: skip


def _text(name: str) -> Markup:
    """A style sheet or script as it is."""
    environment = _templates()
    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0])


@cache
def _plotly() -> Markup:
    """Plotly's script, packed."""
    return as_script("plotly", get_plotlyjs())
