"""How a trial ended: its status, the reason in words, what it misses of constraints on metrics."""

import re
from collections.abc import Mapping
from typing import Any, Final

from hpo.config.objectives import METRICS
from hpo.config.schema import StudyConfig
from hpo.engine.ledger import TrialRecord
from hpo.study.trial import EndReason, TrialError, TrialReport, TrialStatus

BEST_EPOCH: Final = "metrics_of_best_epoch"
# After this many failures and no other end, the search is broken, not the trials.
MAX_FIRST_FAILURES: Final = 5


def outcome_of(
    report: TrialReport, record: TrialRecord, best: float | None
) -> tuple[TrialStatus, str]:
    """A trial's status and why it ended, by its last report; `best` is its value."""
    reason = report.end_reason
    if reason == EndReason.FAILED:
        error = error_of(report)
        return TrialStatus.FAIL, f"{error.type}: {error.message}"
    if reason in {EndReason.COMPLETED, EndReason.EARLY_STOPPED} and best is not None:
        return TrialStatus.COMPLETE, str(reason)
    if reason == EndReason.DIVERGED or best is None:
        return TrialStatus.PRUNED, str(EndReason.DIVERGED)
    return TrialStatus.PRUNED, f"stopped at {record.stopped_at}"


def error_of(report: TrialReport) -> TrialError:
    """What a failed trial says went wrong."""
    return report.error or TrialError("Unknown", "no reason was given")


class MetricBounds:
    """Constraints on metrics: by how much a trial's best epoch misses each.

    Args:
        config: The constraints, and the objective.
    """

    def __init__(self, config: StudyConfig) -> None:
        self._objective = config.objective
        self._bounds = [c for c in config.constraints if c.name in METRICS]

    def note(self, record: TrialRecord, report: TrialReport) -> None:
        """Keeps the metrics of the best epoch with the trial's facts, also while it pauses."""
        if not self._bounds:
            return
        best = record.best_epoch(self._objective)
        names = {str(self._objective.name), *(bound.name for bound in self._bounds)}
        for row in report.epochs:
            if int(row["epoch"]) == best:
                record.facts[BEST_EPOCH] = {n: float(row[n]) for n in names if n in row}

    def violations(self, facts: Mapping[str, Any]) -> dict[str, float]:
        """By how much each bound is missed, by name; at most 0 where it holds."""
        row = facts.get(BEST_EPOCH, {})
        return {str(c): c.violation(row[c.name]) for c in self._bounds if c.name in row}


class FirstFailures:
    """Tells a broken search from broken trials: its first trials all fail for the same reason.

    Args:
        num_trials: `study.num_trials`.
    """

    def __init__(self, num_trials: int) -> None:
        self._enough = min(MAX_FIRST_FAILURES, num_trials)
        self._messages: list[str] = []

    def add(self, error: TrialError) -> None:
        """A trial failed before any ended well."""
        self._messages.append(f"{error.type}: {error.message}")

    @property
    def in_common(self) -> str | None:
        """The reason, once there are enough failures and all are alike; else None."""
        alike = set(map(_without_numbers, self._messages))
        return (
            self._messages[0] if len(self._messages) >= self._enough and len(alike) == 1 else None
        )


def _without_numbers(text: str) -> str:
    """The message without what differs from process to process: pids, addresses, sizes."""
    return re.sub(r"0x[0-9a-f]+|\d+", "N", text)
