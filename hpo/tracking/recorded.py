"""What a run has recorded of its trials: the rows of epochs.csv, else the study's curve."""

import csv

from hpo.run_folder import RunFolder
from hpo.study.trial import TrialStatus, TrialSummary
from hpo.tracking.tracker import News, Row, Sent, TrialEnd


def missing_news(trial: TrialSummary, sent: Sent, folder: RunFolder, metric: str) -> News | None:
    """What a tracker that has `sent` lacks of a trial; None: nothing.

    Where the trial's epochs.csv is not in the run's folder (`study.checkpoint_to`), the study
    knows the metric alone.
    """
    end = None
    if trial.state != TrialStatus.RUNNING:
        reason = str(trial.attributes.get("end_reason", ""))
        # A trial that failed, or diverged at once, has no best value.
        end = TrialEnd(str(trial.outcome), reason, trial.attributes.get("best_value", trial.value))
    epochs = [epoch for epoch in sorted(trial.curve) if epoch > sent.num_epochs]
    if sent.has_ended or (not epochs and end is None):
        return None
    rows = _rows(folder, trial.number) if epochs else {}
    known: list[Row] = [
        rows.get(epoch, {"epoch": epoch, metric: trial.curve[epoch]}) for epoch in epochs
    ]
    return News(trial.params, known, trial.facts_of_pause is not None, end)


def _rows(folder: RunFolder, number: int) -> dict[int, Row]:
    """The rows of a trial's epochs.csv by epoch; empty if the file is not there."""
    path = folder.trials / str(number) / "epochs.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [_typed(row) for row in csv.DictReader(file)]
    except OSError:
        return {}
    return {int(row["epoch"]): row for row in rows if isinstance(row.get("epoch"), float)}


def _typed(row: dict[str, str]) -> Row:
    """The row with numbers in place of text; an empty cell becomes None."""
    values: dict[str, float | None] = {}
    for name, text in row.items():
        try:
            values[name] = float(text)
        except (TypeError, ValueError):
            values[name] = None
    return values
