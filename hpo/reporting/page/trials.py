"""The trials as data: for the table, and for the section of each that the page's script makes."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from hpo.reporting.page.curves import rungs_of
from hpo.reporting.page.reported import Reported
from hpo.reporting.words import status_of
from hpo.selection.verdict import DEFAULT
from hpo.study.trial import TrialStatus, TrialSummary

MOST_TRACEBACKS: Final = 100
MOST_LINES: Final = 30  # of a traceback
MOST_LETTERS: Final = 400  # of the message of any other
# What columns of the leaderboard are called here; states and ends are told in words.
NAMES: Final = {
    "end_reason": "what became of it",
    "best_so_far": "best so far",
    "mean_on_fresh_seeds": "mean on fresh seeds",
    "gain_low": "gain, low",
    "gain_high": "gain, high",
    "num_epochs": "epochs",
    "num_parameters": "model parameters",
}


def trials_data(found: Reported, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All that the page tells of single trials.

    `table` has the leaderboard's columns and rows, `curves` each trial's metric by epoch, `found`
    its findings, as positions in `texts`, and `errors` what broke it.

    Args:
        found: The search.
        rows: The rows of leaderboard_rows.
    """
    by_number = {trial.number: trial for trial in found.trials}
    names = list(rows[0]) if rows else []
    texts: dict[str, int] = {}
    line = found.study.metadata.line
    cells = []
    for row in rows:
        trial = by_number[row["number"]]
        status = _shortened(status_of(trial, found.config, line))
        told = {**row, "state": found.state(trial), "end_reason": status}
        cells.append([told[name] for name in names])
    return {
        "table": {"columns": [NAMES.get(name, name) for name in names], "rows": cells},
        "params": list(found.config.space),
        "metric": found.config.study.metric,
        "rungs": rungs_of(found),
        "default": DEFAULT if DEFAULT in by_number else None,
        "best": None if found.winner is None else found.winner.number,
        "curves": {trial.number: _curve(trial) for trial in found.trials if trial.curve},
        "found": {
            trial.number: _findings(trial, texts)
            for trial in found.trials
            if trial.attributes.get("diagnosis")
        },
        "errors": _errors(found.trials),
        "texts": list(texts),
    }


def _curve(trial: TrialSummary) -> list[float | None]:
    """The metric of each epoch from 1 on; None where there is none."""
    return [trial.curve.get(epoch) for epoch in range(1, trial.num_epochs + 1)]


def _findings(trial: TrialSummary, texts: dict[str, int]) -> list[list[Any]]:
    """Tag, evidence and remedy of each finding; tag and remedy as positions in `texts`."""
    found = trial.attributes["diagnosis"]
    return [
        [
            texts.setdefault(str(one["tag"]), len(texts)),
            str(one["evidence"]),
            texts.setdefault(str(one["remedy"]), len(texts)),
        ]
        for one in found
    ]


def _errors(trials: Sequence[TrialSummary]) -> dict[int, str]:
    """What broke each trial: the end of the traceback of the first ones, the message of others."""
    failed = [t for t in trials if t.state == TrialStatus.FAIL and t.attributes.get("error")]
    errors = {}
    for position, trial in enumerate(failed):
        error = trial.attributes["error"]
        text = f"{error.get('type')}: {error.get('message')}"[:MOST_LETTERS]
        if position < MOST_TRACEBACKS and error.get("traceback"):
            text = "\n".join(str(error["traceback"]).rstrip().splitlines()[-MOST_LINES:])
        errors[trial.number] = text
    return errors


def _shortened(text: str) -> str:
    return text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]} ..."
