"""A trial: its states, its worker's reports, and its summary in the study.

All are plain values, so importing this module does not import torch.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from hpo.config.objectives import Objective
from hpo.config.search_space import Params

FACTS_SO_FAR: Final = "facts_so_far"
# Rank where a trial was stopped and the number of trials there, in a trial's attributes.
STANDING: Final = "standing"
CARRIED_OVER_FROM: Final = "carried_over_from"
# Trials that are ruled out before their training cost nothing, but a search has to end: this
# many count as one in `study.num_trials`.
NUM_INFEASIBLE_A_TRIAL: Final = 10


class TrialStatus(StrEnum):
    """The state of a trial. All but INFEASIBLE are Optuna's own names.

    RUNNING: it trains, is paused, or was left behind by a crash. COMPLETE: it ran its length or
    stopped itself early. PRUNED: the scheduler stopped it, it was paused when the search ended,
    or it diverged. FAIL: it broke, after its retries. INFEASIBLE: its architecture misses a
    constraint, so it was never trained; in Optuna's study its state is PRUNED.
    """

    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    FAIL = "FAIL"
    INFEASIBLE = "INFEASIBLE"


class EndReason(StrEnum):
    """Why a worker stopped training a trial.

    COMPLETED: the trial ran its length. EARLY_STOPPED: its own early stopping ended it. DIVERGED:
    its loss or logits became NaN or infinite. FAILED: its training broke. PAUSED: it cannot go on
    now but may later (a full disk). LEFT: its process was told to end, and has saved it.
    """

    COMPLETED = "completed"
    EARLY_STOPPED = "early_stopped"
    DIVERGED = "diverged"
    FAILED = "failed"
    PAUSED = "paused"
    LEFT = "left"


@dataclass(frozen=True)
class Proposal:
    """A trial to run: a new one, or one that was interrupted.

    Attributes:
        number: The trial's number in the study.
        params: The configuration to train.
        num_epochs_reported: The last epoch that the study has; 0 before the first.
        refused: Why the trial cannot run: somebody enqueued params that the space does not have.
            Such a trial is RUNNING, and has to be ended as FAIL. Empty if the trial can run.
    """

    number: int
    params: Params
    num_epochs_reported: int = 0
    refused: str = ""


@dataclass(frozen=True)
class TrialError:
    """An exception that a training raised, as text."""

    type: str
    message: str
    traceback: str = ""


@dataclass(frozen=True)
class TrialReport:
    """A worker's report of a trial: its new epochs, and in the last report why it ended.

    Attributes:
        number: The trial's number in the study.
        epochs: Rows of EpochMetrics that were not reported before; after a resume all of them.
        end_reason: An EndReason; None: the training goes on.
        facts: What else the worker knows of the trial, for its attributes in the study.
        error: The training's error; set if the end reason is FAILED or PAUSED.
    """

    number: int
    epochs: tuple[dict[str, Any], ...]
    end_reason: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    error: TrialError | None = None

    def values(self, metric: str) -> dict[int, float]:
        """The metric by epoch."""
        return {int(row["epoch"]): float(row[metric]) for row in self.epochs}


@dataclass(frozen=True)
class TrialSummary:
    """One trial as the study has it.

    Attributes:
        number: The trial's number in the study.
        state: The trial's state there; INFEASIBLE trials are PRUNED, see `outcome`.
        value: The metric at the trial's best epoch; None: the trial is not COMPLETE.
        params: The configuration of the trial.
        curve: The metric by epoch.
        attributes: The trial's user attributes.
        constraints: By how much the trial misses each constraint, by name; at most 0: it is kept.
        num_epochs: The last epoch of the curve; 0 before the first.
    """

    number: int
    state: TrialStatus
    value: float | None
    params: Params
    curve: Mapping[int, float]
    attributes: Mapping[str, Any]
    constraints: Mapping[str, float] = field(default_factory=dict)

    @property
    def num_epochs(self) -> int:
        return max(self.curve, default=0)

    def best_value(self, pick: Callable[[Iterable[float]], float]) -> float | None:
        """The metric at the epoch whose weights the trial keeps; None: there is no such epoch.

        If the worker has not reported that epoch, `pick` (max or min) chooses among the values.
        """
        if "best_value" in self.attributes:
            best: float | None = self.attributes["best_value"]
            return best
        known = {epoch: value for epoch, value in self.curve.items() if not math.isnan(value)}
        told = known.get(self.facts.get("best_epoch", 0))
        return pick(known.values()) if known and told is None else told

    def curve_to(self, max_epochs: int) -> dict[int, float]:
        """The metric by epoch; a COMPLETE trial has its value at `max_epochs`, too."""
        end = {} if self.value is None else {max_epochs: self.value}
        return end | dict(self.curve)

    @property
    def is_carried_over(self) -> bool:
        """Whether the trial was carried over from another study."""
        return CARRIED_OVER_FROM in self.attributes

    @property
    def facts_of_origin(self) -> dict[str, Any] | None:
        """The cost of a carried-over trial to the other study: `num_epochs`, `seconds` and so on.

        None: the trial is this study's own, or an older version carried it over and kept nothing.
        """
        kept: dict[str, Any] = self.attributes.get(CARRIED_OVER_FROM, {})
        return kept if "num_epochs" in kept else None

    @property
    def is_feasible(self) -> bool:
        """Whether the trial misses no constraint, as far as these were measured."""
        return all(violation <= 0 for violation in self.constraints.values())

    @property
    def outcome(self) -> TrialStatus:
        """The trial's state, or INFEASIBLE if its architecture ruled out its training."""
        is_pruned = self.state == TrialStatus.PRUNED
        was_ruled_out = is_pruned and not self.curve and not self.is_feasible
        return TrialStatus.INFEASIBLE if was_ruled_out else self.state

    @property
    def facts(self) -> Mapping[str, Any]:
        """The facts that the trial's worker reported at the trial's end or last pause."""
        if "end_reason" in self.attributes:
            return self.attributes
        facts: Mapping[str, Any] = self.attributes.get(FACTS_SO_FAR, {}).get("facts", {})
        return facts

    @property
    def facts_of_pause(self) -> dict[str, Any] | None:
        """The trial's facts if it paused after its last epoch; None: it did not."""
        return facts_of_pause(self.attributes, self.num_epochs)


def facts_of_pause(attributes: Mapping[str, Any], num_epochs: int) -> dict[str, Any] | None:
    """A trial's facts if it paused after epoch `num_epochs`, its last; None: it did not."""
    kept = attributes.get(FACTS_SO_FAR, {})
    return kept["facts"] if kept.get("epoch") == num_epochs else None


def best_epoch(curve: Mapping[int, float], told: int | None, objective: Objective) -> int | None:
    """The epoch whose weights a trial keeps and whose value is the trial's; None: all are NaN.

    The worker reports this epoch as `told`; it differs from the curve's best one if
    early_stopping.metric is not the objective. Without a report the curve's best one counts.
    """
    if told is not None and not math.isnan(curve.get(told, math.nan)):
        return int(told)
    return objective.best_epoch(curve)


def num_counted(trials: Sequence[TrialSummary]) -> int:
    """How many of `study.num_trials` these trials are; ten INFEASIBLE ones count as one."""
    num_infeasible = sum(trial.outcome == TrialStatus.INFEASIBLE for trial in trials)
    return len(trials) - num_infeasible + num_infeasible // NUM_INFEASIBLE_A_TRIAL


def origin(study: str, trial: TrialSummary) -> dict[str, Any]:
    """The attribute CARRIED_OVER_FROM for a copy of a trial in another study.

    Beside the trial's study and number it has the epochs of the trial's curve and their cost, as
    the other study's budget pays only for epochs that are trained after these.
    """
    names = ("num_epochs_trained", "seconds", "gpu_seconds")
    facts = {name: trial.facts[name] for name in names if name in trial.facts}
    return {"study": study, "number": trial.number, "num_epochs": trial.num_epochs, **facts}
