"""What a trial tells the search after each epoch. Plain values: reading it needs no torch."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class EndReason(StrEnum):
    """Why a worker's part of a trial ended.

    COMPLETED: it ran its length. EARLY_STOPPED: its own early stopping ended it. DIVERGED: its
    loss or logits became NaN or infinite. FAILED: its training broke. PAUSED: it cannot go on
    now, and can later (a full disk).
    """

    COMPLETED = "completed"
    EARLY_STOPPED = "early_stopped"
    DIVERGED = "diverged"
    FAILED = "failed"
    PAUSED = "paused"


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
