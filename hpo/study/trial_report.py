"""What a trial tells the search after each epoch. Plain values: reading it needs no torch."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TrialError:
    """An exception of a training, as text."""

    type: str
    message: str
    traceback: str = ""


@dataclass(frozen=True)
class TrialReport:
    """Epochs not told before (after a resume: all of them), and at the end why it ended.

    Attributes:
        number: The trial's number in the study.
        epochs: Rows of EpochMetrics.
        end_reason: 'completed', 'early_stopped', 'diverged' or 'failed'; 'paused': it cannot go
            on now, and can later; None: it goes on.
        facts: What else is known, for the trial's attributes.
        error: Set with 'failed' and 'paused'.
    """

    number: int
    epochs: tuple[dict[str, Any], ...]
    end_reason: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    error: TrialError | None = None

    def values(self, metric: str) -> dict[int, float]:
        """The metric by epoch."""
        return {int(row["epoch"]): float(row[metric]) for row in self.epochs}
