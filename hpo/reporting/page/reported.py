"""Reported: a search as the sections of its page look at it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from hpo.config.schema import SearchConfig
from hpo.engine.ledger import Taken, TrialLedger, taken_by
from hpo.model_files import ModelFiles
from hpo.reporting.health import HealthCard, health_cards
from hpo.reporting.leaderboard import value_so_far
from hpo.reporting.page.stretches import Stretch, stretches
from hpo.reporting.searched import Searched
from hpo.reporting.words import is_paused
from hpo.run import Run
from hpo.run_folder import RunFolder
from hpo.selection.calibration import calibration
from hpo.selection.importances import Importance, importances_with_intervals
from hpo.selection.verdict import Verdict
from hpo.study.study import SearchStudy
from hpo.study.trial import TrialStatus, TrialSummary


@dataclass(frozen=True)
class Reported:
    """A search and the files of its run.

    Attributes:
        run: The run's folder; best/, if it exists, has the delivered model.
        config: The config of the search.
        study: The study, for its metadata.
        trials: The trials that have started.
        winner: The trial that won or leads; None: no trial may win yet.
        verdict: The finalists' comparison on fresh seeds; None: no comparison (yet).
    """

    run: RunFolder
    config: SearchConfig
    study: SearchStudy
    trials: Sequence[TrialSummary]
    winner: TrialSummary | None
    verdict: Verdict | None

    @classmethod
    def of(cls, run: Run) -> Self:
        """The search of a run."""
        return cls(run.folder, run.config, run.study, run.trials, run.winner, run.verdict)

    @cached_property
    def importances(self) -> Mapping[str, Importance]:
        """Each parameter's importance; empty: not known."""
        return importances_with_intervals(self.study, self.config)

    @cached_property
    def health(self) -> tuple[HealthCard, ...]:
        """The outcome of the health checks, the worst first."""
        shares = {path: one.share for path, one in self.importances.items()}
        found = calibration(self.study, self.config, self.trials)
        return health_cards(
            Searched.of(self.config, self.study, self.trials, self.verdict, shares, found)
        )

    @cached_property
    def metrics(self) -> Mapping[str, Any]:
        """The delivered model's metrics by split; empty: no model is delivered."""
        found = read_json(ModelFiles(self.run.best).metrics) or {}
        return {split: found[split] for split in ("val", "test") if found.get(split)}

    @property
    def evaluated(self) -> tuple[str, Mapping[str, Any]]:
        """The split that the delivered model is judged on, with its metrics; "", {}: none."""
        return next(((s, self.metrics[s]) for s in ("test", "val") if s in self.metrics), ("", {}))

    @cached_property
    def classes(self) -> list[str]:
        """The names of the delivered model's classes; empty: no model is delivered."""
        return [str(name) for name in read_json(ModelFiles(self.run.best).classes) or ()]

    @property
    def other_delivered(self) -> int | None:
        """The trial whose model is in best/, if it is not the winner; else None."""
        return other_delivered(self.study, self.winner)

    @cached_property
    def ledger(self) -> TrialLedger:
        """What each trial has cost."""
        return TrialLedger(self.config.study.objective, self.trials)

    @cached_property
    def taken_by_trials(self) -> Mapping[int, Taken]:
        """The cost by trial number, for the trials that have used any budget."""
        return {number: cost.taken for number, cost in self.ledger.costs.items()}

    @cached_property
    def taken_after(self) -> list[Taken]:
        """The cost of each training after the trials: the finalists' and the winner's."""
        after = self.study.metadata.trainings_after
        return [taken_by(int(one["num_epochs"]), one) for one in after]

    @cached_property
    def has_gpus(self) -> bool:
        """Whether any trial was trained on a GPU."""
        return any(trial.facts.get("gpu_seconds") for trial in self.trials)

    @cached_property
    def stretches(self) -> tuple[Stretch, ...]:
        """When which trial was trained by which process, as the run's folder tells."""
        return stretches(self.run, self.trials)

    @cached_property
    def in_order_of_ends(self) -> list[TrialSummary]:
        """The trials in the order in which their last epochs ended, or as they were started."""
        ends = {stretch.trial: stretch.end for stretch in self.stretches}
        if not ends:
            return list(self.trials)
        first = min(ends.values())
        return sorted(self.trials, key=lambda trial: ends.get(trial.number, first))

    def value(self, trial: TrialSummary) -> float | None:
        """The trial's value, or its best metric so far; None before its first epoch."""
        found = value_so_far(trial)
        return trial.best_value(self.config.study.objective.best) if found is None else found

    def best_by(self, trials: Sequence[TrialSummary]) -> list[tuple[TrialSummary, float]]:
        """The trials that were better than all before them, with their values."""
        objective, found = self.config.study.objective, list[tuple[TrialSummary, float]]()
        for trial in trials:
            value = self.value(trial)
            # A stopped trial may win if finalists are retrained.
            may_win = trial.state == TrialStatus.COMPLETE or (
                self.config.compares_finalists and trial.state != TrialStatus.FAIL
            )
            if value is None or value != value or not may_win or not trial.is_feasible:
                continue
            if not found or objective.loss(value) < objective.loss(found[-1][1]):
                found.append((trial, value))
        return found

    def state(self, trial: TrialSummary) -> str:
        """The trial's state in small letters, `paused` and `infeasible` included."""
        return "paused" if is_paused(trial, self.config) else str(trial.outcome).lower()


def other_delivered(study: SearchStudy, winner: TrialSummary | None) -> int | None:
    """The trial whose model is in best/, if it is not the winner; else None."""
    delivered = study.metadata.delivered_trial
    return None if winner is None or delivered == winner.number else delivered


def read_json(path: Path) -> Any:
    """The content of a JSON file; None: there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
