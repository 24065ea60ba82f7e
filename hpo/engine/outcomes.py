"""How a trial ended: its status, the reason in words, and what the study is told of it."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from hpo.config.objectives import METRICS, TRIAL_COSTS
from hpo.config.schema import StudyConfig
from hpo.engine.architectures import ArchitectureCosts
from hpo.engine.ledger import TrialRecord
from hpo.study.trial import EndReason, TrialError, TrialReport, TrialStatus

BEST_EPOCH: Final = "metrics_of_best_epoch"
# If this many trials fail before any ends well, the search is broken, not the trials.
MAX_FIRST_FAILURES: Final = 5


def outcome_of(
    report: TrialReport, record: TrialRecord, best: float | None
) -> tuple[TrialStatus, str]:
    """A trial's status and the reason for its end; `best` is the trial's value."""
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
    """The error that a failed trial reports."""
    return report.error or TrialError("Unknown", "no reason was given")


@dataclass(frozen=True)
class TrialEnd:
    """The end of a trial, for the study.

    Attributes:
        state: Optuna's state: COMPLETE, PRUNED or FAIL.
        best: The objective at the trial's best epoch, of a PRUNED trial too; None: it has none.
        attributes: User attributes for the study: facts, costs and the reason of the end.
        violations: By how much each constraint is missed, by name; at most 0: it is kept.
    """

    state: TrialStatus
    best: float | None
    attributes: Mapping[str, Any]
    violations: Mapping[str, float]

    @property
    def value(self) -> float | None:
        """The value that Optuna is told, `best` of a COMPLETE trial; None for others."""
        return self.best if self.state == TrialStatus.COMPLETE else None


class Outcomes:
    """Works out a trial's end: its status, attributes and constraint violations.

    Args:
        config: Has the objective and the constraints.
        costs: Knows the costs of architectures.
    """

    def __init__(self, config: StudyConfig, costs: ArchitectureCosts) -> None:
        self._objective, self._costs = config.objective, costs
        self._bounds = [c for c in config.constraints if c.name in METRICS]
        self._late_bounds = [c for c in config.constraints if c.name in TRIAL_COSTS]

    def untrained(self, record: TrialRecord) -> tuple[TrialStatus, str] | None:
        """The status of a trial that must not be trained, and why; None: it is trained."""
        if record.refused:
            record.facts["error"] = asdict(TrialError("ConfigError", record.refused))
            return TrialStatus.FAIL, f"enqueued {record.refused}"
        reason = None if record.curve else self._costs.infeasible(record.params)
        return None if reason is None else (TrialStatus.INFEASIBLE, f"infeasible: {reason}")

    def note_metrics(self, record: TrialRecord, report: TrialReport) -> None:
        """Keeps the best epoch's constrained metrics in the trial's facts; a pause keeps these."""
        if not self._bounds:
            return
        best = record.best_epoch(self._objective)
        names = {str(self._objective.name), *(bound.name for bound in self._bounds)}
        for row in report.epochs:
            if int(row["epoch"]) == best:
                record.facts[BEST_EPOCH] = {n: float(row[n]) for n in names if n in row}

    def end_of(self, record: TrialRecord, outcome: TrialStatus, reason: str) -> TrialEnd:
        """The end of a trial with this outcome and reason, for the study."""
        is_infeasible = outcome == TrialStatus.INFEASIBLE
        best = None if outcome == TrialStatus.FAIL else record.best(self._objective)
        attributes = {
            **record.facts,
            **self._costs.of(record.params),
            "end_reason": reason,
            "best_value": best,
            "num_epochs": record.num_epochs,
        }
        row = record.facts.get(BEST_EPOCH, {})
        missed = {str(c): c.violation(row[c.name]) for c in self._bounds if c.name in row}
        told = record.facts
        missed |= {str(c): c.violation(told[c.name]) for c in self._late_bounds if c.name in told}
        return TrialEnd(
            TrialStatus.PRUNED if is_infeasible else outcome,
            best,
            attributes,
            self._costs.violations(record.params) | missed,
        )


class FirstFailures:
    """Recognises a broken search: its first trials all fail with the same error.

    Args:
        num_trials: `study.num_trials`.
    """

    def __init__(self, num_trials: int) -> None:
        self._enough = min(MAX_FIRST_FAILURES, num_trials)
        self._messages: list[str] = []

    def add(self, record: TrialRecord, error: TrialError) -> None:
        """Counts a failed trial, and keeps the error in the trial's facts."""
        self._messages.append(f"{error.type}: {error.message}")
        record.facts["error"] = asdict(error)

    @property
    def in_common(self) -> str | None:
        """The trials' common error, once enough trials have failed; None: there is none."""
        alike = set(map(_without_numbers, self._messages))
        return (
            self._messages[0] if len(self._messages) >= self._enough and len(alike) == 1 else None
        )


def _without_numbers(text: str) -> str:
    """A message without numbers that differ between processes: pids, addresses, sizes."""
    return re.sub(r"0x[0-9a-f]+|\d+", "N", text)
