"""The real course of a random search's trials, and an observer that questions the engine."""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from random_searches import Training

from hpo.config.schema import SearchConfig
from hpo.engine.engine import Engine
from hpo.study.study import SearchStudy
from hpo.study.trial import TrialError, num_counted


@dataclass
class Trial:
    """The real course of a trial, to compare with the study's record.

    Attributes:
        training: The training that the trial runs.
        saved: The number of epochs that the last checkpoint holds.
        begun: The number of begun epochs, lost epochs included.
        carried: The number of epochs begun by another search, before the trial was carried over.
        told: The rows that workers reported, by epoch.
        best_epoch: The epoch whose weights are kept, by the last report.
        end: The last report's end_reason; 'stopped' if the engine stopped or paused the trial.
        stopped_at: The epoch at which the trial was stopped or paused last.
        error: The error of the last report.
    """

    training: Training
    saved: int = 0
    begun: int = 0
    carried: int = 0
    told: dict[int, Mapping[str, float]] = field(default_factory=dict)
    best_epoch: int | None = None
    end: str | None = None
    stopped_at: int | None = None
    error: TrialError | None = None

    def end_reason(self, max_epochs: int) -> str | None:
        """Why the training ends with the last checkpoint; None if the training goes on."""
        if math.isnan(self.training.rows[self.saved - 1]["val_top1"]):
            return "diverged"
        if self.saved < len(self.training.rows):
            return None
        return "completed" if self.saved == max_epochs else "early_stopped"

    def facts(self, watched: str) -> dict[str, Any]:
        """A report's facts besides the rows; the best epoch is chosen by the watched metric."""
        rows = self.training.rows[: self.saved]
        values = {e: r[watched] for e, r in enumerate(rows, 1) if not math.isnan(r[watched])}
        pick = max if watched == "val_top1" else min
        self.best_epoch = pick(values, key=lambda e: values[e], default=None)
        best = {} if self.best_epoch is None else {"best_epoch": self.best_epoch}
        seconds = sum(self.training.seconds[: self.saved])
        return {"seconds": seconds, "num_epochs_trained": self.begun, **best}

    @property
    def num_epochs(self) -> int:
        """Epochs begun by this search."""
        return self.begun - self.carried

    @property
    def num_lost(self) -> int:
        """Epochs of this search that no checkpoint holds: lost epochs and those in training."""
        return self.begun - max(self.saved, self.carried)

    @property
    def seconds(self) -> float:
        """Training seconds of all epochs begun by this search."""
        seconds = self.training.seconds
        return sum(seconds[self.carried : self.saved]) + self.num_lost * seconds[-1]


def is_noted_as_over(study: SearchStudy, config: SearchConfig) -> bool:
    """Whether a resumed run learns from the study that no trial is missing."""
    trials = study.trials()
    is_running = any(trial.state == "RUNNING" for trial in trials)
    is_full = num_counted(trials) >= config.study.num_trials
    return not is_running and (is_full or study.metadata.limits_reached == config.limits)


class Asker:
    """Polls and questions the engine, which should change nothing, and notes any change.

    Args:
        seed: Seed that decides when questions are asked.
        asks_often: Whether questions are asked at all.

    Attributes:
        changes: Changes in the study that questions caused; empty if all is well.
    """

    def __init__(self, seed: int, *, asks_often: bool) -> None:
        self._rng, self._asks_often = random.Random(seed), asks_often
        self.changes: list[str] = []

    def ask(self, decisions: Engine, study: SearchStudy, *, polls: bool = False) -> None:
        """Asks all questions at random times; with `polls`, also polls again after a None."""
        if not self._asks_often or self._rng.random() < 0.6:
            return
        before = _snapshot(study)
        _ = decisions.num_missing, decisions.finished, decisions.is_exhausted, decisions.broken
        if polls:
            assert decisions.next_trial() is None, "asked again at once, it has a trial"
        pairs = zip(before, _snapshot(study), strict=False)
        self.changes += [f"{a} -> {b}" for a, b in pairs if a != b]


def _snapshot(study: SearchStudy) -> list[str]:
    attributes = study.optuna_study.user_attrs
    return [*map(repr, study.trials()), *(repr(pair) for pair in attributes.items())]
