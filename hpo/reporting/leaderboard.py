"""leaderboard.csv: one row for each trial."""

import csv
import io
import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

from hpo.config.schema import SearchConfig
from hpo.selection.finalists import winner_of
from hpo.selection.selection import objective_values, pareto_front
from hpo.selection.verdict import Verdict, finalist_values
from hpo.study.trial import TrialStatus, TrialSummary

ORDER: Final = {
    TrialStatus.COMPLETE: 0,
    TrialStatus.PRUNED: 1,
    TrialStatus.RUNNING: 2,
    TrialStatus.FAIL: 3,
}


def leaderboard_rows(
    trials: Sequence[TrialSummary], config: SearchConfig, verdict: Verdict | None = None
) -> Iterator[dict[str, Any]]:
    """Yields one row per trial: the winner, then by state, and by best value within a state."""
    objective = config.study.objective
    winner = winner_of(config, trials, verdict)

    def rank(trial: TrialSummary) -> tuple[Any, ...]:
        best = value_so_far(trial)
        is_winner = winner is not None and trial.number == winner.number
        loss = math.inf if best is None else objective.loss(best)
        return (not is_winner, ORDER[trial.state], loss, trial.number)

    front = {trial.number for trial in pareto_front(trials, config.study)}
    for trial in sorted(trials, key=rank):
        yield _row(trial, config, verdict, is_on_front=trial.number in front)


def _row(
    trial: TrialSummary, config: SearchConfig, verdict: Verdict | None, *, is_on_front: bool
) -> dict[str, Any]:
    attributes = trial.attributes
    return {
        "number": trial.number,
        "state": trial.state,
        **objective_values(trial, config.study),
        **({"front": is_on_front} if config.study.has_several_objectives else {}),
        "best_so_far": attributes.get("best_value"),
        **({} if verdict is None else finalist_values(verdict, trial.number)),
        "num_epochs": trial.num_epochs,
        "end_reason": attributes.get("end_reason"),
        **{path: trial.params.get(path) for path in config.space},
        "num_parameters": attributes.get("num_parameters"),
        **{name: attributes.get(name) for name in config.study.costs},
        "seconds": attributes.get("seconds"),
        "diagnosis": "; ".join(f["tag"] for f in attributes.get("diagnosis", ())) or None,
    }


def to_csv(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as CSV text with a header; all rows must have the keys of the first row."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else ["number"])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def value_so_far(trial: TrialSummary) -> float | None:
    """The trial's value if COMPLETE, else the best metric so far; None before the first epoch."""
    return trial.value if trial.value is not None else trial.attributes.get("best_value")


def format_value(value: Any) -> str:
    """The text of a table cell: floats with four digits, '-' for None."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
